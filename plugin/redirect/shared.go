package redirect

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/istio-pod-network/controller/internal/invalid"
)

// SharedProxyUser says what becomes of a mesh pod whose app runs as the user or the group of its sidecar. The kernel
// cannot tell the two apart, so the app's traffic bypasses the mesh.
type SharedProxyUser string

// What becomes of it.
const (
	SharedWarn   SharedProxyUser = "warn"   // it is started, and the agent writes an Event
	SharedRefuse SharedProxyUser = "refuse" // it is not started
)

const validShared = "warn or refuse"

// ParseSharedProxyUser reads one.
func ParseSharedProxyUser(text string) (SharedProxyUser, error) {
	switch s := SharedProxyUser(text); s {
	case SharedWarn, SharedRefuse:
		return s, nil
	}
	return "", invalid.Text("sharedProxyUser", text, "unknown choice", validShared)
}

// SharedUserError says that a container beside the sidecar runs as its user or its group. IsInvalid holds for it.
type SharedUserError struct {
	Container string
	What      string // user or group
	ID        int64
}

func (e *SharedUserError) Error() string {
	return fmt.Sprintf("container %s: invalid %s %d: it is that of the sidecar, so the container's traffic would "+
		"bypass the mesh (sharedProxyUser); valid: any other", e.Container, e.What, e.ID)
}

// SharesProxyUser returns a SharedUserError if a container other than the sidecar runs, by what the pod says, as the
// user or the group that the rules of spec exempt, else nil. An init container that ends runs while there is no
// sidecar, and often needs this on purpose. A user that only the image names is not known here.
func (p Pod) SharesProxyUser(spec Spec) *SharedUserError {
	for i, c := range slices.Concat(p.Containers, p.InitContainers) {
		if c.Name == ProxyContainer || i >= len(p.Containers) && !c.Restartable {
			continue
		}
		user, group := cmp.Or(c.RunAsUser, p.RunAsUser), cmp.Or(c.RunAsGroup, p.RunAsGroup)
		switch {
		case user != nil && *user == int64(spec.ProxyUID):
			return &SharedUserError{c.Name, "user", *user}
		case group != nil && spec.ProxyGID != 0 && *group == int64(spec.ProxyGID):
			return &SharedUserError{c.Name, "group", *group}
		}
	}
	return nil
}
