package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/status"
	appsv1 "k8s.io/api/apps/v1"
)

// primary is a primary CNI.
type primary struct {
	name   string
	images []string // ends of the names, without registry, tag and digest, of images on the nodes
	// plugins are the types of its plugins. For some primaries, a reference plugin makes the pods' interfaces.
	plugins []string
	row     string // in docs/compatibility.md; "" if it has none
}

// primaries are the known primaries. Sources: the manifests and charts of these projects, and the network
// configurations that they write.
var primaries = []primary{
	{"Calico", []string{"calico/node"}, []string{"calico"}, "Calico"},
	{"Cilium", []string{"cilium/cilium"}, []string{"cilium-cni"}, "Cilium"},
	{"Flannel", []string{"flannel/flannel", "flannel-io/flannel", "coreos/flannel"}, []string{"flannel"}, "Flannel"},
	{"OVN-Kubernetes", []string{"ovn-kube-u", "ovn-kube-f", "ovn-kubernetes"}, []string{"ovn-k8s-cni-overlay"},
		"OVN-Kubernetes"},
	{"OpenShift SDN", nil, []string{"openshift-sdn"}, "OpenShift SDN"},
	{"AWS VPC CNI", []string{"amazon-k8s-cni"}, []string{"aws-cni"}, "AWS VPC CNI"},
	{"Azure CNI", []string{"azure-cns", "azure-cni"}, []string{"azure-vnet"}, "Azure CNI"},
	{"Antrea", []string{"antrea/antrea-agent-ubuntu", "antrea/antrea-agent-ubi", "antrea/antrea-ubuntu"},
		[]string{"antrea"}, "Antrea"},
	{"kube-router", []string{"cloudnativelabs/kube-router"}, nil, "kube-router"},
	{"kindnet", []string{"kindest/kindnetd"}, nil, "kindnet"},
	{"the reference plugin bridge", nil, []string{"bridge"}, "bridge"},
	{"the reference plugin ptp", nil, []string{"ptp"}, "ptp"},
	{"Multus", nil, []string{"multus"}, "Multus"}, // other checks are about it
	{"Weave Net", []string{"weaveworks/weave-kube"}, []string{"weave-net"}, ""},
	{"Kube-OVN", []string{"kubeovn/kube-ovn"}, []string{"kube-ovn"}, ""},
}

// daemonSets are primaries that are recognised by the name of a DaemonSet, with its namespace if the name is common.
// Their images may have only a digest, or come from a mirror.
var daemonSets = map[string]string{
	"calico-node": "Calico", "canal": "Calico", "cilium": "Cilium", "kube-flannel": "Flannel",
	"kube-flannel-ds": "Flannel", "ovnkube-node": "OVN-Kubernetes", "openshift-sdn/sdn": "OpenShift SDN",
	"aws-node":  "AWS VPC CNI",
	"azure-cns": "Azure CNI", "antrea-agent": "Antrea", "kube-router": "kube-router", "kindnet": "kindnet",
	"weave-net": "Weave Net", "kube-ovn-cni": "Kube-OVN",
}

// primaryCheck is the name of the check about primaries.
const primaryCheck = "primary"

// unknownNext says what to do about a primary that was not tried.
const unknownNext = "the plugin is the last of the chain and reads the result of the others alone, so it may well " +
	"work: prove it with istio-pod-networkctl verify after the installation"

// fits adds whether a primary is in docs/compatibility.md.
func (c *Check) fits(item Item, p primary, what string) {
	item.Check = primaryCheck
	if p.row == "" {
		item.Verdict, item.What, item.Next = Warning, "the network of the pods is "+what+", which nobody has tried",
			unknownNext
	} else {
		item.Verdict, item.What = Well, "the network of the pods is "+what+", which is known to fit"
	}
	c.add(item)
}

// primary reports which primary makes the pods' network: by what runs on the nodes, and by what the agents have found
// there.
func (c *Check) primary(sets []appsv1.DaemonSet, listed bool, items []status.Node) {
	c.said = map[string]bool{}
	for _, set := range sets {
		if p, image := primaryOf(set); p != nil {
			c.said[p.name] = true
			name := strings.TrimSpace(p.name + " " + cmp.Or(tagOf(image), set.Labels[versionLabel]))
			c.fits(Item{}, *p, fmt.Sprintf("%s (DaemonSet %s/%s)", name, set.Namespace, set.Name))
		}
	}
	told := map[string][]string{} // nodes by the plugin that makes their pods' interfaces
	for _, n := range items {
		if n.Agent != nil && len(n.Agent.Installation.Plugins) > 0 {
			told[n.Agent.Installation.Plugins[0]] = append(told[n.Agent.Installation.Plugins[0]], n.Name)
		}
	}
	c.plugins(told)
	if len(c.said) == 0 && listed {
		c.add(Item{Check: primaryCheck, Verdict: NotLookedAt, What: "whose network the pods get: there is no DaemonSet of " +
			"one that is known, and no agent or probe has told which plugins make it"})
	}
}

// plugins reports which primaries the plugins that make pods' interfaces belong to, unless that was reported already.
// nodes has node names by plugin type.
func (c *Check) plugins(nodes map[string][]string) {
	for _, its := range slices.Sorted(maps.Keys(nodes)) {
		i := slices.IndexFunc(primaries, func(p primary) bool { return slices.Contains(p.plugins, its) })
		p := primary{name: "made by the plugin " + its}
		if i >= 0 {
			p = primaries[i]
		}
		isReference := len(p.images) == 0 && slices.Contains([]string{"bridge", "ptp"}, its)
		if c.said[p.name] || isReference && len(c.said) > 0 {
			continue // by a DaemonSet; a reference plugin may make its pods' interfaces
		}
		c.said[p.name] = true
		c.fits(Item{Nodes: nodes[its]}, p, p.name)
	}
}

// primaryOf returns the primary of a DaemonSet and its image, nil if it is not known.
func primaryOf(set appsv1.DaemonSet) (p *primary, image string) {
	for i, p := range primaries {
		for _, container := range set.Spec.Template.Spec.Containers {
			name, _, _ := strings.Cut(container.Image, "@")
			name = strings.TrimSuffix(name, ":"+tagOf(name))
			if slices.ContainsFunc(p.images, func(its string) bool { return name == its || strings.HasSuffix(name, "/"+its) }) {
				return &primaries[i], container.Image
			}
		}
	}
	its := cmp.Or(daemonSets[set.Name], daemonSets[set.Namespace+"/"+set.Name])
	i := slices.IndexFunc(primaries, func(p primary) bool { return p.name == its })
	if i < 0 {
		return nil, ""
	}
	if containers := set.Spec.Template.Spec.Containers; len(containers) > 0 {
		image = containers[0].Image
	}
	return &primaries[i], image
}
