package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// pageSize is how many objects one list request returns.
const pageSize = 500

// Each calls look with every object of a kind that the selector selects, in a namespace or "" for all. It needs the
// verb list on that kind.
func (c *Cluster) Each(
	ctx context.Context, kind schema.GroupVersionResource, namespace, selector string,
	look func(*unstructured.Unstructured),
) error {
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return err
	}
	var from dynamic.ResourceInterface = client.Resource(kind)
	if namespace != "" {
		from = client.Resource(kind).Namespace(namespace)
	}
	options := metav1.ListOptions{LabelSelector: selector, Limit: pageSize}
	for {
		page, err := from.List(ctx, options)
		if err != nil {
			return err
		}
		for i := range page.Items {
			look(&page.Items[i])
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// Create creates an object of a kind without a type in this program. It needs the verb create on that kind.
func (c *Cluster) Create(
	ctx context.Context, kind schema.GroupVersionResource, namespace string, object *unstructured.Unstructured,
) error {
	client, err := dynamic.NewForConfig(c.config)
	if err == nil {
		_, err = client.Resource(kind).Namespace(namespace).Create(ctx, object, metav1.CreateOptions{})
	}
	return err
}

// Inspect returns what an agent's inspect prints for these arguments. It needs the rights of AskNode.
func (c *Cluster) Inspect(ctx context.Context, agent corev1.Pod, what ...string) (answer json.RawMessage, err error) {
	err = c.ask(ctx, agent, &answer, what...)
	return answer, err
}

// AgentLog returns the last lines of an agent's log in at most limit bytes. With previous, it is the log of the
// container before its restart. cut says that there is more. It needs the verb get on pods/log.
func (c *Cluster) AgentLog(
	ctx context.Context, agent corev1.Pod, previous bool, lines int64, limit int,
) (text []byte, cut bool, err error) {
	return c.log(ctx, agent.Namespace, agent.Name, &corev1.PodLogOptions{
		Container: agentContainer, Previous: previous, TailLines: &lines, Timestamps: true,
	}, limit)
}

// Log returns the last lines of a container's log in at most limit bytes. cut says that there is more. It needs the
// verb get on pods/log.
func (c *Cluster) Log(
	ctx context.Context, pod *corev1.Pod, container string, lines int64, limit int,
) (text []byte, cut bool, err error) {
	return c.log(ctx, pod.Namespace, pod.Name, &corev1.PodLogOptions{Container: container, TailLines: &lines}, limit)
}

func (c *Cluster) log(
	ctx context.Context, namespace, pod string, options *corev1.PodLogOptions, limit int,
) (text []byte, cut bool, err error) {
	from, err := c.Core.Pods(namespace).GetLogs(pod, options).Stream(ctx)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = from.Close() }()
	return tail(from, limit)
}

// tail returns the last whole lines that fit into limit bytes.
func tail(from io.Reader, limit int) (text []byte, cut bool, err error) {
	part := make([]byte, 64<<10)
	for {
		n, err := from.Read(part)
		text = append(text, part[:n]...)
		if len(text) > 2*limit {
			text, cut = append([]byte(nil), text[len(text)-limit:]...), true
		}
		switch {
		case err == io.EOF:
			if len(text) > limit {
				text, cut = text[len(text)-limit:], true
			}
			if cut {
				_, text, _ = bytes.Cut(text, []byte("\n")) // the rest of a line
			}
			return text, cut, nil
		case err != nil:
			return nil, false, err
		}
	}
}

// AgentMetrics returns an agent's metrics in at most limit bytes, through the API server's proxy. It needs the verb get
// on pods/proxy.
func (c *Cluster) AgentMetrics(ctx context.Context, agent corev1.Pod, limit int) ([]byte, error) {
	from, err := c.Core.Pods(agent.Namespace).ProxyGet("http", agent.Name, portOf(agent), "metrics", nil).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = from.Close() }()
	text, err := io.ReadAll(io.LimitReader(from, int64(limit)+1))
	if err == nil && len(text) > limit {
		err = fmt.Errorf("they are longer than %d bytes", limit)
	}
	return text, err
}

// portOf returns the number of the agent's metrics port, "" for the first port.
func portOf(agent corev1.Pod) string {
	for _, c := range agent.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == "metrics" {
				return fmt.Sprint(p.ContainerPort)
			}
		}
	}
	return ""
}

// Version returns the API server's version.
func (c *Cluster) Version(ctx context.Context) (string, error) {
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	text, err := c.Core.RESTClient().Get().AbsPath("/version").DoRaw(ctx)
	if err == nil {
		err = json.Unmarshal(text, &version)
	}
	return version.GitVersion, err
}
