package sysdump

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/blank"
	"github.com/istio-pod-network/controller/internal/invalid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Limits of questions.
const (
	atOnce     = 8                // agents at the same time
	askTimeout = 30 * time.Second // for one question to an agent
)

// findAgents finds the agents and their namespaces. It notes what it may not list, because the rest is still useful. An
// error means that nothing answers, or that the command line is wrong.
func (c *collector) findAgents(ctx context.Context) error {
	err := c.each(ctx, agentPods, c.namespace, func(o *unstructured.Unstructured) {
		var pod corev1.Pod
		if err := typed(o, &pod); err != nil {
			c.miss(err, "pod %s/%s", o.GetNamespace(), o.GetName())
			return
		}
		c.own[pod.Namespace] = true
		if c.isWanted(pod.Spec.NodeName) {
			c.agents = append(c.agents, pod)
		}
	})
	c.listed = err == nil
	if answer := apierrors.APIStatus(nil); err != nil && !errors.As(err, &answer) {
		return outcome.Unasked(fmt.Errorf("listing the agents' pods: %w", err))
	}
	if err != nil {
		c.miss(err, "pods of the agents")
		if c.namespace != "" {
			c.own[c.namespace] = true
		}
	}
	setsErr := c.each(ctx, agentSets, c.namespace, func(o *unstructured.Unstructured) {
		c.own[o.GetNamespace()] = true
		var set appsv1.DaemonSet
		if err := typed(o, &set); err != nil {
			c.miss(err, "DaemonSet %s/%s", o.GetNamespace(), o.GetName())
			return
		}
		c.sets = append(c.sets, set)
	})
	if setsErr != nil {
		c.miss(setsErr, "DaemonSets of the agents")
	}
	if c.listed && setsErr == nil && len(c.own) == 0 {
		c.miss(&helped{cluster.ErrNoAgent, "istio-pod-networkctl check says what an installation lacks."}, "agents")
	}
	for _, node := range c.nodes {
		if c.listed && !slices.ContainsFunc(c.agents, func(pod corev1.Pod) bool { return pod.Spec.NodeName == node }) {
			return outcome.Misuse(invalid.Text("--nodes", node, "no agent is there", "names of nodes that have an agent"))
		}
	}
	slices.SortFunc(c.agents, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// agentless reports whether a node lacks the agent that it should have.
func (c *collector) agentless(node corev1.Node) bool {
	return c.listed && slices.ContainsFunc(c.sets, func(set appsv1.DaemonSet) bool { return cluster.Wants(set, node) }) &&
		!slices.ContainsFunc(c.agents, func(pod corev1.Pod) bool { return pod.Spec.NodeName == node.Name })
}

// isWanted reports whether the user chose the node.
func (c *collector) isWanted(node string) bool {
	return len(c.nodes) == 0 || slices.Contains(c.nodes, node)
}

func (c *collector) askAgents(ctx context.Context) {
	cluster.AtOnce(len(c.agents), atOnce, func(i int) { c.askAgent(ctx, c.agents[i]) })
}

// askAgent reads everything from one agent. If the agent does not run, it reads its logs.
func (c *collector) askAgent(ctx context.Context, pod corev1.Pod) {
	of := path.Join(cmp.Or(pod.Spec.NodeName, "no-node"), pod.Name)
	what := func(of string) string { return of + " of agent " + pod.Namespace + "/" + pod.Name }
	bounded := func(ask func(context.Context)) {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		ask(ctx)
	}
	for _, question := range []string{"node", "files"} {
		bounded(func(ctx context.Context) {
			c.inspect(ctx, pod, "agents", of, question, what("inspect "+question), question)
		})
	}
	restarted := slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.RestartCount > 0
	})
	for base, previous := range map[string]bool{"agent.log": false, "agent-previous.log": true} {
		if previous && !restarted {
			continue
		}
		bounded(func(ctx context.Context) {
			text, cut, err := c.from.AgentLog(ctx, pod, previous, c.logLines, maxFile)
			if err != nil {
				c.miss(err, "%s", what(base))
				return
			}
			f := file{dir: "agents", of: of, base: base, text: blank.Text(string(text)), free: true}
			if cut {
				f.note = fmt.Sprintf("its last %d bytes", maxFile)
			}
			c.addTold(f)
		})
	}
	bounded(func(ctx context.Context) {
		text, err := c.from.AgentMetrics(ctx, pod, maxFile)
		if err != nil {
			c.miss(err, "%s", what("metrics"))
			return
		}
		c.addTold(file{dir: "agents", of: of, base: "metrics.txt", text: blank.Text(string(text)), free: true})
	})
}

// askChosen reads record and rules of the chosen pods, one after the other: an agent looks at one pod at a time.
func (c *collector) askChosen(ctx context.Context) {
	for _, name := range c.chosen {
		namespace, pod, _ := strings.Cut(name, "/")
		c.hide.know(ofNamespace, namespace) // no list has the name if the pod is gone or may not be listed
		c.hide.know(ofPod, pod)
		node, known := c.nodeOf[name]
		at := slices.IndexFunc(c.agents, func(pod corev1.Pod) bool { return pod.Spec.NodeName == node })
		switch {
		case !known:
			c.miss(&helped{errors.New("no such pod was found"), "Name pods as kubectl get pods -A does: --pod NAMESPACE/NAME."},
				"pod %s", name)
			continue
		case node == "" || at < 0:
			c.miss(&helped{errors.New("no agent that was asked runs on its node"),
				"Leave --nodes out; istio-pod-networkctl explain " + name + " says whether its node has an agent."},
				"record and rules of pod %s", name)
			continue
		}
		for base, question := range map[string]string{"record": "pod", "rules": "rules"} {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			c.inspect(ctx, c.agents[at], "pods", name, base, "inspect "+question+" "+name, question, name)
			cancel()
		}
	}
}

// inspect adds an agent's answer to a question.
func (c *collector) inspect(
	ctx context.Context, pod corev1.Pod, dir, of, base, what string, question ...string,
) {
	answer, err := c.from.Inspect(ctx, pod, question...)
	if cluster.CannotAnswer(err) {
		err = fmt.Errorf("the agent is of a release that cannot answer: %w", err)
	}
	var tree any
	if err == nil {
		err = json.Unmarshal(answer, &tree)
	}
	if err != nil {
		c.miss(err, "%s", what)
		return
	}
	tree = withoutSecrets(tree)
	if question[0] == "rules" {
		tree = c.hide.rules(tree)
	}
	c.addTold(file{dir: dir, of: of, base: base + ".json", objects: []any{tree}, free: true})
	var node inspect.Node
	if question[0] != "node" || json.Unmarshal(answer, &node) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	row := c.versions[pod.Spec.NodeName]
	if row == nil {
		row = map[string]any{}
		c.versions[pod.Spec.NodeName] = row
	}
	row["agent"], row["plugin"], row["pluginSHA256"] = node.Agent, node.Plugin.Version, node.Plugin.SHA256
}
