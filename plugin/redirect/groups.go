package redirect

import "cmp"

// LeftOut is a container whose outbound traffic is not captured, because of its group.
type LeftOut struct {
	Container string
	Group     int64
}

// LeftOut returns a container whose pod spec gives it a group that the settings do not capture, or nil. It ignores the
// sidecar, and init containers that end before the sidecar runs: for these the setting is meant.
func (p Pod) LeftOut(spec Spec) *LeftOut {
	for _, c := range p.beside() {
		if group := cmp.Or(c.RunAsGroup, p.RunAsGroup); group != nil && !spec.capturesGroup(ID(*group)) {
			return &LeftOut{c.Name, *group}
		}
	}
	return nil
}

// capturesGroup reports whether the outbound traffic of the group is captured.
func (s Spec) capturesGroup(id ID) bool {
	if s.IncludeOutboundGroups.All() {
		return !s.ExcludeOutboundGroups.has(id)
	}
	return s.IncludeOutboundGroups.has(id)
}
