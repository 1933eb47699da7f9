package sysdump

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/blank"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/internal/invalid"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Source is where it comes from: a cluster.
type Source interface {
	Version(ctx context.Context) (string, error)
	Each(ctx context.Context, kind schema.GroupVersionResource, namespace, selector string,
		look func(*unstructured.Unstructured)) error
	Inspect(ctx context.Context, agent corev1.Pod, what string) (json.RawMessage, error)
	AgentLog(ctx context.Context, agent corev1.Pod, previous bool, lines int64, limit int) ([]byte, bool, error)
	AgentMetrics(ctx context.Context, agent corev1.Pod, limit int) ([]byte, error)
}

// Bounds of what is asked.
const (
	atOnce     = 8                // agents
	askTimeout = 30 * time.Second // of one question to an agent
)

// collector reads a cluster.
type collector struct {
	options
	contents
	from Source
	hide *redactor // nil where names stay

	agents   []corev1.Pod
	own      map[string]bool           // the agents' namespaces
	pods     map[string]bool           // of the mesh, NAMESPACE/NAME
	versions map[string]map[string]any // by node
	ofMesh   map[string][]*corev1.Pod  // by namespace
	nameless map[string]error          // what lists of names could not be read
}

// collect reads everything. An error says that nothing could be asked.
func (c *collector) collect(ctx context.Context) error {
	c.own, c.pods, c.nameless = map[string]bool{}, map[string]bool{}, map[string]error{}
	c.versions, c.ofMesh = map[string]map[string]any{}, map[string][]*corev1.Pod{}
	if err := c.findAgents(ctx); err != nil {
		return err
	}
	c.listNodes(ctx)
	c.listNamespaces(ctx)
	c.listPods(ctx)
	for _, k := range kinds {
		c.listKind(ctx, k)
	}
	c.listEvents(ctx)
	c.askAgents(ctx)
	c.addVersions(ctx)
	return ctx.Err()
}

// each looks at all objects of a kind, in the first of its versions that the cluster has; none is no error.
func (c *collector) each(ctx context.Context, k kind, namespace string, look func(*unstructured.Unstructured)) error {
	for _, version := range k.versions {
		err := c.from.Each(ctx, k.resource(version), namespace, k.selector, look)
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// findAgents finds the agents, and the namespaces that they are in.
func (c *collector) findAgents(ctx context.Context) error {
	var wrong error
	err := c.each(ctx, agentPods, c.namespace, func(o *unstructured.Unstructured) {
		var pod corev1.Pod
		if err := typed(o, &pod); err != nil {
			wrong = err
			return
		}
		c.own[pod.Namespace] = true
		if c.isWanted(pod.Spec.NodeName) {
			c.agents = append(c.agents, pod)
		}
	})
	if err := cmp.Or(err, wrong); err != nil {
		return outcome.Unasked(fmt.Errorf("listing the agents' pods, which needs the verb list on pods: %w", err))
	}
	err = c.each(ctx, agentSets, c.namespace, func(o *unstructured.Unstructured) { c.own[o.GetNamespace()] = true })
	if err != nil {
		c.miss(err, "DaemonSets of the agents")
	}
	if len(c.own) == 0 {
		return outcome.Unasked(cluster.ErrNoAgent)
	}
	for _, node := range c.nodes {
		if !slices.ContainsFunc(c.agents, func(pod corev1.Pod) bool { return pod.Spec.NodeName == node }) {
			return outcome.Misuse(invalid.Text("--nodes", node, "no agent is there", "names of nodes that have an agent"))
		}
	}
	slices.SortFunc(c.agents, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// isWanted reports whether a node was asked for.
func (c *collector) isWanted(node string) bool {
	return len(c.nodes) == 0 || slices.Contains(c.nodes, node)
}

// addObjects adds a file of objects, if there are any.
func (c *collector) addObjects(f file, objects []map[string]any) {
	for _, o := range objects {
		f.objects = append(f.objects, o)
	}
	if len(f.objects) > 0 {
		c.addTold(f)
	}
}

// addTold adds a file, unless it may have names that nobody could tell.
func (c *collector) addTold(f file) {
	if c.hide != nil && f.free && len(c.nameless) > 0 {
		lists := strings.Join(slices.Sorted(maps.Keys(c.nameless)), " and ")
		c.miss(fmt.Errorf("with --redact it may only be told where the names of all %s are known", lists), "%s",
			path.Join(f.dir, f.of, f.base))
		return
	}
	c.add(f)
}

func (c *collector) listNodes(ctx context.Context) {
	var objects []map[string]any
	err := c.each(ctx, ofNodes, "", func(o *unstructured.Unstructured) {
		c.hide.knowNode(o.GetName())
		var node corev1.Node
		if err := typed(o, &node); err != nil {
			c.miss(err, "node %s", o.GetName())
			return
		}
		for _, a := range node.Status.Addresses {
			if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
				c.hide.knowNode(a.Address)
			}
		}
		if !c.isWanted(node.Name) {
			return
		}
		objects = append(objects, nodeOf(o))
		info := node.Status.NodeInfo
		c.versions[node.Name] = map[string]any{"kernel": info.KernelVersion, "system": info.OSImage,
			"runtime": info.ContainerRuntimeVersion, "kubelet": info.KubeletVersion, "architecture": info.Architecture}
	})
	c.unlisted("nodes", err)
	c.addObjects(file{dir: "objects", base: "nodes.yaml"}, objects)
}

// unlisted notes that a list of names is missing.
func (c *collector) unlisted(what string, err error) {
	if err != nil {
		c.nameless[what] = err
		c.miss(err, "%s", what)
	}
}

func (c *collector) listNamespaces(ctx context.Context) {
	var objects []map[string]any
	err := c.each(ctx, ofNamespaces, "", func(o *unstructured.Unstructured) {
		c.hide.know(ofNamespace, o.GetName())
		objects = append(objects, namespaceOf(o))
	})
	c.unlisted("namespaces", err)
	c.addObjects(file{dir: "objects", base: "namespaces.yaml"}, objects)
}

// listPods keeps the pods of the mesh, and knows the names of all.
func (c *collector) listPods(ctx context.Context) {
	var agents []map[string]any
	isAgent := map[string]bool{}
	for _, pod := range c.agents {
		isAgent[pod.Namespace+"/"+pod.Name] = true
	}
	err := c.each(ctx, ofPods, "", func(o *unstructured.Unstructured) {
		var pod corev1.Pod
		if err := typed(o, &pod); err != nil {
			c.miss(err, "pod %s/%s", o.GetNamespace(), o.GetName())
			return
		}
		c.knowPod(&pod)
		switch name := pod.Namespace + "/" + pod.Name; {
		case isAgent[name]:
			agents = append(agents, cleaned(o))
		case isOfMesh(&pod) && c.isWanted(pod.Spec.NodeName):
			c.pods[name] = true
			c.ofMesh[pod.Namespace] = append(c.ofMesh[pod.Namespace], podOf(&pod))
		}
	})
	c.unlisted("pods", err)
	if err != nil {
		for _, pod := range c.agents {
			c.knowPod(&pod)
		}
	}
	c.addObjects(file{dir: "objects", base: "agents.yaml"}, agents)
	for namespace, pods := range c.ofMesh {
		var objects []map[string]any
		for _, pod := range pods {
			tree, err := treeOf(pod)
			if err != nil {
				c.miss(err, "pod %s/%s", namespace, pod.Name)
				continue
			}
			objects = append(objects, tree)
		}
		c.addObjects(file{dir: "pods", of: namespace, base: "pods.yaml"}, objects)
	}
}

// knowPod has the names of a pod replaced, and those that its name was made of.
func (c *collector) knowPod(pod *corev1.Pod) {
	c.hide.knowNode(pod.Spec.NodeName)
	c.hide.know(ofNamespace, pod.Namespace)
	c.hide.know(ofPod, pod.Name)
	for _, owner := range pod.OwnerReferences {
		if owner.Kind == "Node" { // of a static pod
			continue
		}
		c.hide.know(ofOwner, owner.Name)
		if hash := pod.Labels["pod-template-hash"]; hash != "" {
			c.hide.know(ofOwner, strings.TrimSuffix(owner.Name, "-"+hash))
		}
	}
	c.hide.know(ofOwner, pod.Spec.ServiceAccountName)
}

func (c *collector) listKind(ctx context.Context, k kind) {
	namespaces := []string{""}
	if k.own {
		namespaces = slices.Sorted(maps.Keys(c.own))
	}
	var objects []map[string]any
	for _, namespace := range namespaces {
		err := c.each(ctx, k, namespace, func(o *unstructured.Unstructured) {
			if k.takes == nil || k.takes(o) {
				objects = append(objects, cleaned(o))
			}
		})
		if err != nil {
			c.miss(err, "%s", k.name)
		}
	}
	c.addObjects(file{dir: "objects", base: k.name + ".yaml"}, objects)
}

// listEvents keeps those of use, the latest first.
func (c *collector) listEvents(ctx context.Context) {
	type event struct {
		at   time.Time
		tree map[string]any
	}
	var all []event
	err := c.each(ctx, ofEvents, "", func(o *unstructured.Unstructured) {
		var e corev1.Event
		if err := typed(o, &e); err != nil || !isOfUse(&e, c.own, c.pods) {
			return
		}
		if e.InvolvedObject.Kind == "Pod" {
			c.hide.know(ofNamespace, e.InvolvedObject.Namespace)
			c.hide.know(ofPod, e.InvolvedObject.Name)
		}
		at := e.LastTimestamp.Time
		if at.IsZero() {
			at = cmp.Or(e.EventTime.Time, e.CreationTimestamp.Time)
		}
		all = append(all, event{at, cleaned(o)})
	})
	if err != nil {
		c.miss(err, "events")
	}
	slices.SortStableFunc(all, func(a, b event) int { return b.at.Compare(a.at) })
	var objects []map[string]any
	for _, e := range all {
		objects = append(objects, e.tree)
	}
	c.addObjects(file{dir: "objects", base: "events.yaml", free: true}, objects)
}

func (c *collector) askAgents(ctx context.Context) {
	turns := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for _, pod := range c.agents {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			c.askAgent(ctx, pod)
		})
	}
	all.Wait()
}

// askAgent reads what there is of one agent. One that does not run has its logs all the same.
func (c *collector) askAgent(ctx context.Context, pod corev1.Pod) {
	of := path.Join(cmp.Or(pod.Spec.NodeName, "no-node"), pod.Name)
	what := func(of string) string { return of + " of agent " + pod.Namespace + "/" + pod.Name }
	bounded := func(ask func(context.Context)) {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		ask(ctx)
	}
	for _, question := range []string{"node", "files"} {
		bounded(func(ctx context.Context) { c.inspect(ctx, pod, of, question, what("inspect "+question)) })
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

// inspect adds what an agent says.
func (c *collector) inspect(ctx context.Context, pod corev1.Pod, of, question, what string) {
	answer, err := c.from.Inspect(ctx, pod, question)
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
	c.addTold(file{dir: "agents", of: of, base: question + ".json", objects: []any{withoutSecrets(tree)}, free: true})
	var node inspect.Node
	if question != "node" || json.Unmarshal(answer, &node) != nil {
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

// addVersions adds the file with all versions.
func (c *collector) addVersions(ctx context.Context) {
	version, err := c.from.Version(ctx)
	if err != nil {
		c.miss(err, "version of the API server")
	}
	nodes := []any{}
	for _, name := range slices.Sorted(maps.Keys(c.versions)) {
		row := c.versions[name]
		row["name"] = name
		nodes = append(nodes, row)
	}
	c.add(file{base: "versions.json", objects: []any{map[string]any{
		"apiVersion": output.APIVersion, "kind": "Versions", "tool": buildinfo.Version(), "kubernetes": version,
		"nodes": nodes,
	}}})
}

// known has every name that stands in what was read replaced.
func (c *collector) known() {
	if c.hide == nil {
		return
	}
	var texts []string
	for _, f := range c.files {
		texts = append(texts, f.text)
		for _, o := range f.objects {
			data, err := json.Marshal(o)
			if err == nil {
				texts = append(texts, string(data))
			}
		}
	}
	c.hide.harvest(texts)
}
