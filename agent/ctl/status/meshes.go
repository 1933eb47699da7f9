package status

import (
	"slices"

	"github.com/istio-pod-network/controller/agent/ctl/output"
)

// Mesh is another mesh with a CNI plugin. Sources: the charts istio/cni, linkerd2-cni, kuma and consul, and the
// configurations that their programs write.
type Mesh struct {
	Name      string
	DaemonSet string // a part of the name of the DaemonSet that installs it
	plugin    string // the type of its plugin
	Next      string // what to do if it is beside ours
}

// besideUs is advice for another mesh's plugin.
const besideUs = "keep the namespaces of the two meshes apart: where another's rules are in a pod, ours are not " +
	"added (foreign-rules)"

// Meshes are the known meshes.
var Meshes = []Mesh{
	{"Istio's own CNI", "istio-cni-node", "istio-cni", "while you migrate that is right; then uninstall it " +
		"(docs/migration.md, Migrate from Istio CNI). With ambient it stays"},
	{"Linkerd's CNI", "linkerd-cni", "linkerd-cni", besideUs},
	{"Kuma's CNI", "kuma-cni", "kuma-cni", besideUs},
	{"Kong Mesh's CNI", "kong-mesh-cni", "kong-mesh-cni", besideUs},
	{"Consul's CNI", "consul-cni", "consul-cni", besideUs},
}

// OtherMeshes returns a finding for each other mesh whose plugin is in a node's network.
func OtherMeshes(plugins []string) (found []output.Finding) {
	for _, mesh := range Meshes {
		if slices.Contains(plugins, mesh.plugin) {
			found = append(found, output.Finding{What: mesh.Name + " is in the network of its pods, too: the plugin " +
				mesh.plugin, Next: mesh.Next})
		}
	}
	return found
}
