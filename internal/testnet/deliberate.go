package testnet

// Deliberate says that this project wants another outcome of the flow than Istio's rules bring about. (Istio's CNI
// plugin also leaves outbound port 15020 alone if nothing else is said; its init container does not, and neither do
// we.)
func Deliberate(p Profile, f Flow) bool {
	s := p.settings()
	who := f.From.ids(s)
	byUID, byGID := who.uid == s.proxyUID, who.gid == s.proxyGID
	_, escapes := f.Kind.attempt()
	switch {
	case escapes:
		return true // Istio has no guard
	case f.Kind == Zone:
		return true // Istio gives every DNS query a zone, and every answer that comes from outside
	case f.Proto != TCP:
		return false
	case s.tproxy && f.Port == 15008 && (!f.From.inPod() || f.To.local() && (byUID || byGID)):
		return true // Istio's TPROXY rules take the port of its own tunnel as well
	case s.tproxy && f.From == FromVM && len(s.rerouteInterfaces) > 0:
		return true // TPROXY and REDIRECT both take the packet, and the destination is lost
	case s.tproxy && byUID && f.Kind == OriginalSrc:
		return true // Istio redirects what a sidecar of its own user sends to its app back to it, whatever its mark
	case s.tproxy && f.Kind == OriginalSrc && s.loopbackCIDR:
		return true // a loopback range in the list makes the sidecar's call to its app come back to it
	}
	// Istio asks for the user before it asks for the group, and so never gets to "a sidecar by its group alone calls its
	// own pod".
	return !s.tproxy && !byUID && byGID && f.To.local() && f.To != Loopback && f.Src != Passthrough
}
