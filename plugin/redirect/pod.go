package redirect

import "slices"

// Pod is what is known of a pod when its network is set up. It is also the answer of the agent's facts socket, so its
// JSON form is part of that protocol.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
	// Annotations of the pod. nil means "not known" (Multus relays none), empty means the pod has none.
	Annotations map[string]string `json:"annotations"`
	// Complete says that everything below is known: only the agent can say so, runtimeConfig carries annotations alone.
	Complete             bool              `json:"complete,omitempty"`
	Labels               map[string]string `json:"labels,omitempty"`
	NamespaceAnnotations map[string]string `json:"namespaceAnnotations,omitempty"`
	// RunAsUser and RunAsGroup are the pod-level security context, the default of its containers.
	RunAsUser  *int64 `json:"runAsUser,omitempty"`
	RunAsGroup *int64 `json:"runAsGroup,omitempty"`
	// FSGroup and SupplementalGroups are groups that every container is in beside its own.
	FSGroup            *int64      `json:"fsGroup,omitempty"`
	SupplementalGroups []int64     `json:"supplementalGroups,omitempty"`
	Containers         []Container `json:"containers,omitempty"`
	InitContainers     []Container `json:"initContainers,omitempty"`
}

// Container is the part of a container that a decision or a setting is read from.
type Container struct {
	Name       string            `json:"name"`
	Args       []string          `json:"args,omitempty"`
	Env        map[string]string `json:"env,omitempty"`        // values that stand in the pod
	Unresolved []string          `json:"unresolved,omitempty"` // names of variables whose values stand elsewhere
	RunAsUser  *int64            `json:"runAsUser,omitempty"`
	RunAsGroup *int64            `json:"runAsGroup,omitempty"`
	// SupplementalGroups are those of its user in the image; only who has seen the container run knows them.
	SupplementalGroups []int64 `json:"supplementalGroups,omitempty"`
	// NetAdmin says that the container can program packet rules itself: NET_ADMIN or ALL added, or privileged.
	NetAdmin bool `json:"netAdmin,omitempty"`
	// Restartable says of an init container that it goes on beside the others: a native sidecar.
	Restartable bool `json:"restartable,omitempty"`
}

// Container names that Istio's injection fixes.
const (
	ProxyContainer = "istio-proxy" // the sidecar, a regular container or (native sidecar) an init container
	InitContainer  = "istio-init"  // programs the rules itself if it has NET_ADMIN, else it is a wait
)

// proxy returns the sidecar container, nil if there is none.
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

// beside returns the containers that run beside the sidecar. An init container that ends runs while there is none.
func (p Pod) beside() []Container {
	var list []Container
	for i, c := range slices.Concat(p.Containers, p.InitContainers) {
		if c.Name != ProxyContainer && (i < len(p.Containers) || c.Restartable) {
			list = append(list, c)
		}
	}
	return list
}

// meshAnnotated reports whether the pod carries an annotation by which someone meant it for the mesh, so that a pod
// left untouched still gets a record (and, through the agent, a mark an init wait can see).
func (p *Pod) meshAnnotated() bool {
	for key := range p.Annotations {
		if ofMesh(key) {
			return true
		}
	}
	return false
}
