package redirect

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/istio-pod-network/controller/internal/invalid"
)

// SharedProxyUser says what happens to a mesh pod whose app runs as the sidecar's user or group. The kernel cannot tell
// the two apart, so the app's traffic bypasses the mesh.
type SharedProxyUser string

// Values of SharedProxyUser.
const (
	SharedWarn   SharedProxyUser = "warn"   // the pod starts, and the agent creates an Event
	SharedRefuse SharedProxyUser = "refuse" // the pod does not start
)

const validShared = "warn or refuse"

// ParseSharedProxyUser parses a value.
func ParseSharedProxyUser(text string) (SharedProxyUser, error) {
	switch s := SharedProxyUser(text); s {
	case SharedWarn, SharedRefuse:
		return s, nil
	}
	return "", invalid.Text("sharedProxyUser", text, "unknown choice", validShared)
}

// SharedUserError says that a container other than the sidecar has the sidecar's user or group, or has that group as an
// additional one. IsInvalid holds for it.
type SharedUserError struct {
	Container string
	What      string // user, group, fsGroup or supplemental group
	ID        int64
}

// Values of SharedUserError.What.
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

// Beside reports whether the container has the sidecar's group only as an additional one. Its traffic is then captured,
// until it runs a program that is setgid to that group; it may create such a program itself.
func (e *SharedUserError) Beside() bool {
	return e.What == sharedFSGroup || e.What == sharedSupplemental
}

// SharesProxyUser returns an error if the pod spec gives a container other than the sidecar the user or the group that
// the rules of spec exempt, also as an additional group, and nil otherwise. It ignores init containers that end: they
// run before the sidecar, and often need this on purpose. A user that only the image defines is unknown here.
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
