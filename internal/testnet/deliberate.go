package testnet

// Deliberate reports whether this project's rules give the flow another outcome than Istio's on purpose. (Istio's CNI
// plugin also exempts outbound port 15020 by default; its init container does not, and neither do we.)
func Deliberate(p Profile, f Flow) bool {
	s := p.settings()
	who := f.From.ids(s)
	byUID, byGID := who.uid == s.proxyUID, who.gid == s.proxyGID
	_, escapes := f.Kind.attempt()
	switch {
	case escapes:
		return true // Istio has no guard
	case f.Kind == Zone:
		return true // Istio puts every DNS query, and every answer from outside, into a zone
	case f.Proto != TCP:
		return false
	case s.tproxy && f.Port == 15008 && (!f.From.inPod() || f.To.local() && (byUID || byGID)):
		return true // Istio's TPROXY rules also capture the port of its own tunnel
	case s.tproxy && f.From == FromVM && len(s.rerouteInterfaces) > 0:
		return true // in Istio's rules both TPROXY and REDIRECT match the packet, and its destination is lost
	case s.tproxy && byUID && f.Kind == OriginalSrc:
		return true // Istio's rules return to the sidecar what it sends to its app as a user of its own, with any mark
	case s.tproxy && f.Kind == OriginalSrc && s.loopbackCIDR:
		return true // a loopback range in the list makes the sidecar's call to its app return to it
	}
	// Istio matches the user before the group, so "the sidecar, by its group alone, calls its own pod" never matches.
	return !s.tproxy && !byUID && byGID && f.To.local() && f.To != Loopback && f.Src != Passthrough
}
