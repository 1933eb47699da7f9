package explain

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/internal/podfacts"
	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	documents "k8s.io/apimachinery/pkg/util/yaml"
)

// twice returns an error if an object in a YAML document has a key twice: the decoder would silently use the last one.
// Invalid YAML is left to the decoder.
func twice(source string, data []byte) error {
	reader := documents.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for document := 1; ; document++ {
		text, err := reader.Read()
		if err != nil {
			return nil //nolint:nilerr // the end, or an error that the decoder has, too
		}
		var node yaml.Node
		if yaml.Unmarshal(text, &node) != nil {
			continue
		}
		if key := again(&node); key != nil {
			return fmt.Errorf("%s: document %d has a key twice: line %d: key %q already set in map; valid: each key once",
				source, document, key.Line, key.Value)
		}
	}
}

// again returns a key that an object below a node has twice, nil if there is none. An object's own key may repeat one
// that is merged into it (<<).
func again(node *yaml.Node) *yaml.Node {
	seen := map[string]bool{}
	for i, below := range node.Content {
		if node.Kind == yaml.MappingNode && i%2 == 0 && below.Tag != "!!merge" && below.Kind == yaml.ScalarNode {
			if seen[below.Value] {
				return below
			}
			seen[below.Value] = true
		}
		if key := again(below); key != nil {
			return key
		}
	}
	return nil
}

// check returns an error if an object lacks what the API server requires, because an answer would then mean nothing.
func check(kind string, pod *corev1.Pod) error {
	name := cmp.Or(pod.Name, pod.GenerateName)
	of := strings.TrimSpace("of " + kind + " " + name)
	switch template := templates[kind]; {
	case name == "":
		return invalid.Text("metadata.name "+of, "", "it has no name", "a name, or metadata.generateName")
	case template != "" && equality.Semantic.DeepEqual(pod.Spec, corev1.PodSpec{}):
		return invalid.JSON(template+" "+of, "{}", "it has no pod", "a template with spec.containers")
	case len(pod.Spec.Containers) == 0:
		return invalid.JSON(strings.TrimPrefix(template+".spec.containers ", ".")+of, "[]", "it has no container",
			"a list of one container or more")
	case pod.Namespace != "":
		if err := cluster.CheckNamespace("metadata.namespace "+of, pod.Namespace); err != nil {
			return err
		}
	}
	key := "metadata.name of "
	if pod.Name == "" {
		key, name = "metadata.generateName of ", strings.TrimSuffix(name, "-")
	}
	if err := cluster.CheckObject(key+kind, name); err != nil {
		return err
	}
	return numbers{strings.TrimPrefix(templates[kind]+".spec.", "."), of}.check(&pod.Spec)
}

// numbers checks the IDs and ports in a pod's object. An invalid one would be truncated to another valid one.
type numbers struct{ path, of string }

func (n numbers) check(spec *corev1.PodSpec) error {
	if s := spec.SecurityContext; s != nil {
		const at = "securityContext."
		err := cmp.Or(n.id(at+"runAsUser", s.RunAsUser), n.id(at+"runAsGroup", s.RunAsGroup), n.id(at+"fsGroup", s.FSGroup))
		for i := range s.SupplementalGroups {
			err = cmp.Or(err, n.id(fmt.Sprintf("%ssupplementalGroups[%d]", at, i), &s.SupplementalGroups[i]))
		}
		if err != nil {
			return err
		}
	}
	for _, list := range []struct {
		name       string
		containers []corev1.Container
	}{
		{"initContainers", spec.InitContainers}, {"containers", spec.Containers},
		{"ephemeralContainers", podfacts.Ephemeral(&corev1.Pod{Spec: *spec})},
	} {
		for i := range list.containers {
			if err := n.container(fmt.Sprintf("%s[%d].", list.name, i), &list.containers[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n numbers) container(at string, c *corev1.Container) (err error) {
	if s := c.SecurityContext; s != nil {
		err = cmp.Or(n.id(at+"securityContext.runAsUser", s.RunAsUser), n.id(at+"securityContext.runAsGroup", s.RunAsGroup))
	}
	for i, port := range c.Ports {
		err = cmp.Or(err, n.port(fmt.Sprintf("%sports[%d].containerPort", at, i), port.ContainerPort))
		if port.HostPort != 0 { // 0 means none
			err = cmp.Or(err, n.port(fmt.Sprintf("%sports[%d].hostPort", at, i), port.HostPort))
		}
	}
	return cmp.Or(err, n.probe(at+"livenessProbe.", c.LivenessProbe), n.probe(at+"readinessProbe.", c.ReadinessProbe),
		n.probe(at+"startupProbe.", c.StartupProbe))
}

// probe checks the port of a probe. A named port is one of the container's.
func (n numbers) probe(at string, p *corev1.Probe) error {
	switch {
	case p == nil:
		return nil
	case p.HTTPGet != nil && p.HTTPGet.Port.Type == intstr.Int:
		return n.port(at+"httpGet.port", p.HTTPGet.Port.IntVal)
	case p.TCPSocket != nil && p.TCPSocket.Port.Type == intstr.Int:
		return n.port(at+"tcpSocket.port", p.TCPSocket.Port.IntVal)
	case p.GRPC != nil:
		return n.port(at+"grpc.port", p.GRPC.Port)
	}
	return nil
}

func (n numbers) id(field string, id *int64) error {
	if id == nil || len(validation.IsValidUserID(*id)) == 0 { // the same limits hold for groups
		return nil
	}
	return invalid.JSON(n.path+field+" "+n.of, strconv.FormatInt(*id, 10), "not a user or group ID", "0 to 2147483647")
}

func (n numbers) port(field string, port int32) error {
	if len(validation.IsValidPortNum(int(port))) == 0 {
		return nil
	}
	return invalid.JSON(n.path+field+" "+n.of, strconv.Itoa(int(port)), "not a port number", "1 to 65535")
}
