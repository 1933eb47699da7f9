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

// SharedUserError says that a container beside the sidecar runs as its user or its group, or is in its group. IsInvalid
// holds for it.
type SharedUserError struct {
	Container string
	What      string // user, group, fsGroup or supplemental group
	ID        int64
}

// What a container may share with the sidecar.
const (
	sharedUser         = "user"
	sharedGroup        = "group"
	sharedFSGroup      = "fsGroup"
	sharedSupplemental = "supplemental group"
)

func (e *SharedUserError) Error() string {
	return fmt.Sprintf("container %s: invalid %s %d: it is that of the sidecar, so the container's traffic would "+
		"bypass the mesh (sharedProxyUser); valid: any other", e.Container, e.What, e.ID)
}

// Beside says that the container has the group beside its own. Its traffic is then its own, until it runs a program
// that is setgid to that group, and it may make itself one.
func (e *SharedUserError) Beside() bool {
	return e.What == sharedFSGroup || e.What == sharedSupplemental
}

// SharesProxyUser returns a SharedUserError if a container other than the sidecar runs, by what the pod says, as the
// user or the group that the rules of spec exempt, or has the group beside its own, else nil. An init container that
// ends runs while there is no sidecar, and often needs this on purpose. A user that only the image names is not known
// here.
func (p Pod) SharesProxyUser(spec Spec) *SharedUserError {
	uid, gid := int64(spec.ProxyUID), int64(spec.ProxyGID)
	is := func(id *int64, shared int64) bool { return id != nil && *id == shared }
	for _, c := range p.beside() {
		switch {
		case is(cmp.Or(c.RunAsUser, p.RunAsUser), uid):
			return &SharedUserError{c.Name, sharedUser, uid}
		case gid == 0: // no group is exempt
		case is(cmp.Or(c.RunAsGroup, p.RunAsGroup), gid):
			return &SharedUserError{c.Name, sharedGroup, gid}
		case is(p.FSGroup, gid):
			return &SharedUserError{c.Name, sharedFSGroup, gid}
		case slices.Contains(p.SupplementalGroups, gid), slices.Contains(c.SupplementalGroups, gid):
			return &SharedUserError{c.Name, sharedSupplemental, gid}
		}
	}
	return nil
}
