package sysdump

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

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
		if c.agentless(node) {
			c.miss(&helped{errors.New("no agent runs there"), cluster.NextNoAgent}, "agent of node %s", node.Name)
		}
		objects = append(objects, nodeOf(o))
		info := node.Status.NodeInfo
		c.versions[node.Name] = map[string]any{"kernel": info.KernelVersion, "system": info.OSImage,
			"runtime": info.ContainerRuntimeVersion, "kubelet": info.KubeletVersion, "architecture": info.Architecture}
	})
	c.unlisted("nodes", err)
	c.addObjects(file{dir: "objects", base: "nodes.yaml"}, objects)
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

// unlisted stores that a list of names is missing.
func (c *collector) unlisted(what string, err error) {
	if err != nil {
		c.nameless[what] = err
		c.miss(err, "%s", what)
	}
}

// listPods stores the mesh pods, and the names of all pods.
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
		if name := pod.Namespace + "/" + pod.Name; slices.Contains(c.chosen, name) {
			c.nodeOf[name] = pod.Spec.NodeName
		}
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

// knowPod makes the redactor replace the names of a pod, and those from which its name was made.
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

// listEvents stores useful Events, the latest first.
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
