package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/excerpt"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
)

// The agent's container, and the agent's program in it.
const (
	agentContainer = "agent"
	agentProgram   = "/istio-pod-network-agent"
)

// maxAnswer limits an agent's answer in bytes: a node has some hundred pods, with names of up to 317 bytes.
const maxAnswer = 4 << 20

// longestError is the largest number of bytes of a program's error that is shown.
const longestError = 300

// AskNode asks an agent about its node. It needs the verbs get and create on pods/exec in the agent's namespace.
func (c *Cluster) AskNode(ctx context.Context, agent corev1.Pod) (n inspect.Node, err error) {
	err = c.ask(ctx, agent, &n, "node")
	return n, err
}

// AskPod asks an agent about a pod of its node. It needs the rights of AskNode.
func (c *Cluster) AskPod(ctx context.Context, agent corev1.Pod, namespace, name string) (p inspect.Pod, err error) {
	err = c.ask(ctx, agent, &p, "pod", namespace+"/"+name)
	return p, err
}

// AskTrace asks an agent what the kernel reports about a packet of a pod of its node. from is "outside" or
// "uid:N:GROUP", proto is "tcp" or "udp", and to is ADDRESS:PORT. It needs the rights of AskNode.
func (c *Cluster) AskTrace(
	ctx context.Context, agent corev1.Pod, namespace, name, from, proto, to string,
) (t inspect.Trace, err error) {
	err = c.ask(ctx, agent, &t, "trace", namespace+"/"+name, from, proto, to)
	return t, err
}

// What to do about a node's agent that cannot be asked, or cannot answer.
const (
	NextNoAgent      = "istio-pod-networkctl status says why no agent runs there."
	NextCannotAnswer = "Upgrade the agents to the release of this tool."
)

// CannotAnswer reports whether AskNode, AskPod, AskTrace or Inspect failed because the agent's release does not know
// the question: its program rejects it as an unexpected argument.
func CannotAnswer(err error) bool {
	return err != nil && strings.Contains(err.Error(), "unexpected argument")
}

// ask runs the agent's inspect with these arguments, and decodes its output.
func (c *Cluster) ask(ctx context.Context, agent corev1.Pod, answer any, args ...string) error {
	out, err := c.run(ctx, agent, agentContainer, append([]string{agentProgram, "inspect"}, args...))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, answer); err != nil {
		return fmt.Errorf("the agent's answer %s: %w", excerpt.Quote(string(out)), err)
	}
	return nil
}

// run runs a program in a container and returns its output.
func (c *Cluster) run(ctx context.Context, pod corev1.Pod, container string, command []string) ([]byte, error) {
	request := c.Core.RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true},
			scheme.ParameterCodec)
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", request.URL())
	if err != nil {
		return nil, err
	}
	// An API server before 1.31, or a proxy before it, may not support WebSockets.
	websocket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", request.URL().String())
	if err != nil {
		return nil, err
	}
	var refused error
	executor, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
		refused = refusal(err)
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return nil, err
	}
	var out, problems bounded
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &problems}); err != nil {
		return nil, cmp.Or(problems.asError(), refused, err)
	}
	return out.data.Bytes(), out.problem
}

// refusal returns the API server's answer to a WebSocket if it is about the user's rights, otherwise nil. The second
// attempt, by SPDY, may still succeed: it needs create alone. If it fails, its error has only the text of the answer.
func refusal(err error) error {
	var failure *httpstream.UpgradeFailureError
	if errors.As(err, &failure) && LacksRight(failure.Cause) {
		return failure.Cause
	}
	return nil
}

// bounded stores what is written, up to maxAnswer.
type bounded struct {
	data    bytes.Buffer
	problem error
}

// Write stores data, or returns an error if there is too much.
func (b *bounded) Write(data []byte) (int, error) {
	if b.data.Len()+len(data) > maxAnswer {
		b.problem = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
		return 0, b.problem
	}
	return b.data.Write(data)
}

// asError returns a program's standard error as an error, nil if it is empty.
func (b *bounded) asError() error {
	text := strings.TrimSpace(b.data.String())
	if text == "" {
		return nil
	}
	return errors.New(excerpt.Head(text, longestError))
}
