package redirect

import "cmp"

// LeftOut is a container whose outbound traffic is not captured, by the group that it runs in.
type LeftOut struct {
	Container string
	Group     int64
}

// LeftOut returns a container beside the sidecar that runs, by what the pod says, in a group that the settings leave
// out of the redirection, else nil. It is meant for init containers that end while there is no sidecar.
func (p Pod) LeftOut(spec Spec) *LeftOut {
	for _, c := range p.beside() {
		if group := cmp.Or(c.RunAsGroup, p.RunAsGroup); group != nil && !spec.capturesGroup(ID(*group)) {
			return &LeftOut{c.Name, *group}
		}
	}
	return nil
}

// capturesGroup reports whether the outbound traffic of a group is captured.
func (s Spec) capturesGroup(id ID) bool {
	if s.IncludeOutboundGroups.All() {
		return !s.ExcludeOutboundGroups.has(id)
	}
	return s.IncludeOutboundGroups.has(id)
}
