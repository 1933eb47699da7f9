package check

import (
	"context"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/status"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// networks checks what else is in the pods' network.
func (c *Check) networks(
	ctx context.Context, from Source, r release, a api, items []status.Node, before bool,
) {
	list, err := from.Apps.DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		c.unlooked("other-meshes", "whose network the pods get, other meshes' CNI plugins, and Cilium", "list "+
			"daemonsets.apps in all namespaces", err)
		c.primary(nil, false, items)
	} else {
		c.primary(list.Items, true, items)
		c.meshes(list.Items)
		for _, set := range list.Items {
			if set.Name == "cilium" {
				c.cilium(ctx, from, set.Namespace)
			}
		}
	}
	c.multus(ctx, from, r, a, before)
}

// meshes looks for other meshes' CNI plugins.
func (c *Check) meshes(sets []appsv1.DaemonSet) {
	found := false
	for _, set := range sets {
		for _, mesh := range status.Meshes {
			if strings.Contains(set.Name, mesh.DaemonSet) {
				found = true
				c.warn("other-meshes", mesh.Name+" is there: DaemonSet "+set.Namespace+"/"+set.Name, mesh.Next)
			}
		}
	}
	if !found {
		c.well("other-meshes", "there is no DaemonSet of another mesh's CNI plugin")
	}
}

// cilium checks the two settings of Cilium that matter. Source: the ConfigMap of Cilium's chart,
// install/kubernetes/cilium/templates/cilium-configmap.yaml.
func (c *Check) cilium(ctx context.Context, from Source, namespace string) {
	const check, name = "cilium", "cilium-config"
	config, err := from.Core.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		c.unlooked(check, "Cilium's settings", "get configmaps in namespace "+namespace, err)
		return
	}
	well := true
	if config.Data["cni-exclusive"] == "true" {
		well = false
		c.ill(check, "Cilium takes every other network configuration away (cni-exclusive), our entry included",
			"set cni.exclusive=false in Cilium's values")
	}
	balances := config.Data["kube-proxy-replacement"] == "true" || config.Data["bpf-lb-sock"] == "true"
	if balances && config.Data["bpf-lb-sock-hostns-only"] != "true" {
		well = false
		c.ill(check, "Cilium translates the addresses of Services in the app's socket, before the rules see them",
			"set socketLB.hostNamespaceOnly=true in Cilium's values")
	}
	if well {
		c.well(check, "Cilium leaves our entry and the addresses of Services alone")
	}
}

// multus checks whether the plugin is chained where Multus runs the plugins.
func (c *Check) multus(ctx context.Context, from Source, r release, a api, before bool) {
	const check = "multus"
	mode := r.flags["mode"]
	switch {
	case !a.multus && mode == "nad":
		c.ill(check, "the agents are in mode nad, and the cluster has no Multus", "set kubernetesDistribution and cni.mode "+
			"as docs/install.md, Choose a mode, says")
	case !a.multus:
	case before && a.openshift:
		c.warn(check, "this is OpenShift, where Multus runs the plugins", "install with kubernetesDistribution=OpenShift "+
			"(docs/openshift.md)")
	case before:
		c.warn(check, "Multus is there, whose file the installer does not edit", "set cni.primary, or cni.mode=nad "+
			"(docs/install.md, Multus outside OpenShift)")
	case mode == "nad":
		c.definition(ctx, from)
	case mode == "aux":
		c.well(check, "Multus runs the plugin by its auxiliary chain")
	case mode == "chain" && r.flags["primary"] == "":
		c.warn(check, "Multus is there, and the agents chain the plugin into the runtime's first network", "where that is "+
			"Multus's own file the agents are not ready: set cni.primary, or cni.mode=nad (docs/install.md, Multus outside "+
			"OpenShift)")
	case mode == "chain":
		c.well(check, "Multus is there, and the plugin is chained into the network %s", r.flags["primary"])
	}
}

// definition looks for our NetworkAttachmentDefinition.
func (c *Check) definition(ctx context.Context, from Source) {
	const check = "multus"
	resource := schema.GroupVersionResource{Group: multus, Version: "v1", Resource: "network-attachment-definitions"}
	list, err := from.Metadata.Resource(resource).List(ctx, metav1.ListOptions{
		LabelSelector: cluster.OfChart})
	switch {
	case err != nil:
		c.unlooked(check, "the network that mesh pods name", "list network-attachment-definitions."+multus, err)
	case len(list.Items) == 0:
		c.ill(check, "the NetworkAttachmentDefinition of the chart is missing: Multus makes no pod that names it",
			"helm upgrade, or apply the manifests again")
	default:
		c.well(check, "mesh pods name the network %s/%s", list.Items[0].Namespace, list.Items[0].Name)
	}
}
