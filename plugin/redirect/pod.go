package redirect

import "slices"

// Pod has the facts of a pod that a decision uses. It is also the answer on the agent's socket, so its JSON form is a
// part of that protocol.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
	// Annotations of the pod. nil means that they are unknown (Multus passes none), empty that the pod has none.
	Annotations map[string]string `json:"annotations"`
	// Complete says that all fields below are known. Only the agent sets it: runtimeConfig has annotations only.
	Complete             bool              `json:"complete,omitempty"`
	Labels               map[string]string `json:"labels,omitempty"`
	NamespaceAnnotations map[string]string `json:"namespaceAnnotations,omitempty"`
	// RunAsUser and RunAsGroup are those of the pod's security context, the defaults of its containers.
	RunAsUser  *int64 `json:"runAsUser,omitempty"`
	RunAsGroup *int64 `json:"runAsGroup,omitempty"`
	// FSGroup and SupplementalGroups are groups that every container has in addition to its own.
	FSGroup            *int64      `json:"fsGroup,omitempty"`
	SupplementalGroups []int64     `json:"supplementalGroups,omitempty"`
	Containers         []Container `json:"containers,omitempty"`
	InitContainers     []Container `json:"initContainers,omitempty"`
}

// Container has the fields of a container that a decision or a setting uses.
type Container struct {
	Name       string            `json:"name"`
	Args       []string          `json:"args,omitempty"`
	Env        map[string]string `json:"env,omitempty"`        // variables with a literal value
	Unresolved []string          `json:"unresolved,omitempty"` // names of variables with valueFrom, whose value is unknown
	RunAsUser  *int64            `json:"runAsUser,omitempty"`
	RunAsGroup *int64            `json:"runAsGroup,omitempty"`
	// SupplementalGroups are the groups of the user in the image. They are known only of a container that has run.
	SupplementalGroups []int64 `json:"supplementalGroups,omitempty"`
	// NetAdmin says that the container can write packet rules: it has NET_ADMIN or ALL, or is privileged.
	NetAdmin bool `json:"netAdmin,omitempty"`
	// Restartable says that an init container is a native sidecar: it keeps running beside the others.
	Restartable bool `json:"restartable,omitempty"`
}

// Names of containers that Istio's injector adds.
const (
	ProxyContainer = "istio-proxy" // the sidecar: a regular container, or as a native sidecar an init container
	InitContainer  = "istio-init"  // writes Istio's rules if it has NET_ADMIN; otherwise it is an init wait
)

// proxy returns the sidecar, or nil if there is none.
func (p *Pod) proxy() *Container {
	for _, list := range [][]Container{p.Containers, p.InitContainers} {
		for i := range list {
			if list[i].Name == ProxyContainer {
				return &list[i]
			}
		}
	}
	return nil
}

// beside returns the containers that run beside the sidecar. Init containers that end run before it.
func (p Pod) beside() []Container {
	var list []Container
	for i, c := range slices.Concat(p.Containers, p.InitContainers) {
		if c.Name != ProxyContainer && (i < len(p.Containers) || c.Restartable) {
			list = append(list, c)
		}
	}
	return list
}

// meshAnnotated reports whether the pod has an annotation that means it for the mesh. Such a pod gets a record even if
// it is left untouched, and with the record a mark for its init wait.
func (p *Pod) meshAnnotated() bool {
	for key := range p.Annotations {
		if ofMesh(key) {
			return true
		}
	}
	return false
}
