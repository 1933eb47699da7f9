package testnet

import "slices"

// Flows returns the flows that make sense with the profile's settings, the same in every family. Flows of the kinds
// ListenerDown and PlainListener must not run together with others.
func Flows(p Profile) []Flow {
	s := p.settings()
	flows := slices.Concat(outboundFlows, proxyFlows, inboundFlows, dnsFlows, s.escapes())
	if s.tproxy {
		flows = slices.DeleteFunc(flows, s.hasNoWayBack)
		flows = append(flows, tproxyFlows...)
	}
	if s.dns {
		flows = append(flows, zoneFlows...)
	}
	if !s.allGroups || len(s.excludeGroups) > 0 {
		flows = append(flows, groupFlows...)
	}
	if s.proxyUID != 1337 && s.proxyGID != 1337 {
		flows = append(flows, Flow{Name: "stock-peer", From: FromStock, Proto: TCP, To: Peer, Port: 8080})
	}
	return flows
}

// outboundFlows are those of apps.
var outboundFlows = []Flow{
	{Name: "app-peer", From: FromApp, Proto: TCP, To: Peer, Port: 8080},
	{Name: "app-peer-8081", From: FromApp, Proto: TCP, To: Peer, Port: 8081},
	{Name: "app-peer-9090", From: FromApp, Proto: TCP, To: Peer, Port: 9090},
	{Name: "app-peer-15008", From: FromApp, Proto: TCP, To: Peer, Port: 15008},
	{Name: "app-peer-15020", From: FromApp, Proto: TCP, To: Peer, Port: 15020},
	{Name: "app-peer-closed", From: FromApp, Proto: TCP, To: Peer, Port: 7000},
	{Name: "app-service", From: FromApp, Proto: TCP, To: Service, Port: 80},
	{Name: "app-service-9090", From: FromApp, Proto: TCP, To: Service, Port: 9090},
	{Name: "app-outside", From: FromApp, Proto: TCP, To: Outside, Port: 443},
	{Name: "app-outside-9090", From: FromApp, Proto: TCP, To: Outside, Port: 9090},
	{Name: "root-peer", From: FromRoot, Proto: TCP, To: Peer, Port: 8080},
	{Name: "app-vm", From: FromApp, Proto: TCP, To: VM, Port: 8080},
	{Name: "app-pod", From: FromApp, Proto: TCP, To: Pod, Port: 8080},
	{Name: "app-pod-9090", From: FromApp, Proto: TCP, To: Pod, Port: 9090},
	{Name: "app-self", From: FromApp, Proto: TCP, To: Self, Port: 8080},
	{Name: "app-loopback", From: FromApp, Proto: TCP, To: Loopback, Port: 8080},
	{Name: "app-loopback2", From: FromApp, Proto: TCP, To: Loopback2, Port: 8080},
	{Name: "app-pod-no-socket", From: FromApp, Proto: TCP, To: Pod, Port: 8080, Kind: NoSocket},
	{Name: "app-udp-peer", From: FromApp, Proto: UDP, To: Peer, Port: 9000},
	{Name: "app-udp-pod", From: FromApp, Proto: UDP, To: Pod, Port: 9000},
	{Name: "app-ping-peer", From: FromApp, Proto: ICMP, To: Peer},
	{Name: "app-ping-pod", From: FromApp, Proto: ICMP, To: Pod},
}

// proxyFlows are those of the sidecar. Its user and its group are used separately, to test the rules for each.
var proxyFlows = []Flow{
	{Name: "proxy-peer", From: FromProxy, Proto: TCP, To: Peer, Port: 8080},
	{Name: "proxy-uid-peer", From: FromProxyUID, Proto: TCP, To: Peer, Port: 8080},
	{Name: "proxy-gid-peer", From: FromProxyGID, Proto: TCP, To: Peer, Port: 8080},
	{Name: "proxy-outside", From: FromProxy, Proto: TCP, To: Outside, Port: 443},
	{Name: "proxy-uid-service", From: FromProxyUID, Proto: TCP, To: Service, Port: 80},
	{Name: "proxy-gid-service", From: FromProxyGID, Proto: TCP, To: Service, Port: 80},
	{Name: "proxy-vm", From: FromProxy, Proto: TCP, To: VM, Port: 8080},
	{Name: "proxy-pod", From: FromProxy, Proto: TCP, To: Pod, Port: 8080},
	{Name: "proxy-uid-pod", From: FromProxyUID, Proto: TCP, To: Pod, Port: 8080},
	{Name: "proxy-gid-pod", From: FromProxyGID, Proto: TCP, To: Pod, Port: 8080},
	{Name: "proxy-self", From: FromProxy, Proto: TCP, To: Self, Port: 8080},
	{Name: "proxy-gid-self", From: FromProxyGID, Proto: TCP, To: Self, Port: 8080},
	{Name: "proxy-pod-15008", From: FromProxy, Proto: TCP, To: Pod, Port: 15008},
	{Name: "proxy-gid-pod-15008", From: FromProxyGID, Proto: TCP, To: Pod, Port: 15008},
	{Name: "proxy-loopback", From: FromProxy, Proto: TCP, To: Loopback, Port: 8080},
	{Name: "proxy-gid-loopback", From: FromProxyGID, Proto: TCP, To: Loopback, Port: 8080},
	{Name: "proxy-loopback2", From: FromProxy, Proto: TCP, To: Loopback2, Port: 8080},
	{Name: "proxy-passthrough", From: FromProxy, Proto: TCP, To: Pod, Port: 8080, Src: Passthrough},
	{Name: "proxy-gid-passthrough", From: FromProxyGID, Proto: TCP, To: Pod, Port: 8080, Src: Passthrough},
	{Name: "proxy-udp-peer", From: FromProxy, Proto: UDP, To: Peer, Port: 9000},
}

// tproxyFlows are those of the sidecar in TPROXY mode: to its app with the client's address, also its own pod's; and as
// its user to its own pod, without a transparent listener. An app that sets the sidecar's mark is among them.
var tproxyFlows = []Flow{
	{Name: "proxy-original-src", From: FromProxy, Proto: TCP, To: Pod, Port: 8080, Src: Peer, Kind: OriginalSrc},
	{Name: "proxy-uid-original-src", From: FromProxyUID, Proto: TCP, To: Pod, Port: 8080, Src: Peer, Kind: OriginalSrc},
	{Name: "proxy-gid-original-src", From: FromProxyGID, Proto: TCP, To: Pod, Port: 8080, Src: Peer, Kind: OriginalSrc},
	{Name: "proxy-uid-original-src-pod", From: FromProxyUID, Proto: TCP, To: Pod, Port: 8080, Src: Pod,
		Kind: OriginalSrc},
	{Name: "app-self-marked", From: FromApp, Proto: TCP, To: Self, Port: 8080, Src: Pod, Kind: Marked},
	{Name: "app-peer-marked", From: FromApp, Proto: TCP, To: Peer, Port: 8080, Src: Pod, Kind: Marked},
	{Name: "proxy-uid-pod-plain-listener", From: FromProxyUID, Proto: TCP, To: Pod, Port: 8080, Kind: PlainListener},
}

// inboundFlows come from outside the pod.
var inboundFlows = []Flow{
	{Name: "peer-pod", From: FromPeer, Proto: TCP, To: Pod, Port: 8080},
	{Name: "peer-pod-8081", From: FromPeer, Proto: TCP, To: Pod, Port: 8081},
	{Name: "peer-pod-9090", From: FromPeer, Proto: TCP, To: Pod, Port: 9090},
	{Name: "peer-pod-closed", From: FromPeer, Proto: TCP, To: Pod, Port: 7000},
	{Name: "peer-pod-15008", From: FromPeer, Proto: TCP, To: Pod, Port: 15008},
	{Name: "peer-pod-15020", From: FromPeer, Proto: TCP, To: Pod, Port: 15020},
	{Name: "peer-pod-15021", From: FromPeer, Proto: TCP, To: Pod, Port: 15021},
	// a closed port: the kernel's answer has no socket
	{Name: "peer-pod-15090-reset", From: FromPeer, Proto: TCP, To: Pod, Port: 15090},
	{Name: "peer-pod-udp", From: FromPeer, Proto: UDP, To: Pod, Port: 9000},
	{Name: "peer-pod-ping", From: FromPeer, Proto: ICMP, To: Pod},
	{Name: "peer-pod-listener-down", From: FromPeer, Proto: TCP, To: Pod, Port: 8080, Kind: ListenerDown},
	{Name: "peer-pod-15021-listener-down", From: FromPeer, Proto: TCP, To: Pod, Port: 15021, Kind: ListenerDown},
	{Name: "peer-pod-invalid", From: FromPeer, Proto: TCP, To: Pod, Port: 8080, Kind: Invalid},
	{Name: "peer-vm", From: FromPeer, Proto: TCP, To: VM, Port: 8080}, // the pod forwards it
	{Name: "vm-pod", From: FromVM, Proto: TCP, To: Net1, Port: 8080},
	{Name: "vm-pod-15021", From: FromVM, Proto: TCP, To: Net1, Port: 15021},
	{Name: "vm-outside", From: FromVM, Proto: TCP, To: Outside, Port: 443},
	{Name: "vm-outside-9090", From: FromVM, Proto: TCP, To: Outside, Port: 9090},
	{Name: "vm-peer", From: FromVM, Proto: TCP, To: Peer, Port: 8080},
	{Name: "vm-peer-udp", From: FromVM, Proto: UDP, To: Peer, Port: 9000},
}

// dnsFlows make sense with and without DNS capture.
var dnsFlows = []Flow{
	{Name: "app-dns-udp", From: FromApp, Proto: UDP, To: Peer, Port: 53},
	{Name: "app-dns-udp-service", From: FromApp, Proto: UDP, To: Service, Port: 53},
	{Name: "app-dns-udp-loopback", From: FromApp, Proto: UDP, To: Loopback, Port: 53},
	{Name: "app-dns-tcp", From: FromApp, Proto: TCP, To: Peer, Port: 53},
	{Name: "app-dns-tcp-loopback", From: FromApp, Proto: TCP, To: Loopback, Port: 53},
	{Name: "proxy-dns-udp", From: FromProxy, Proto: UDP, To: Peer, Port: 53},
	{Name: "proxy-uid-dns-udp", From: FromProxyUID, Proto: UDP, To: Peer, Port: 53},
	{Name: "proxy-gid-dns-udp", From: FromProxyGID, Proto: UDP, To: Peer, Port: 53},
	{Name: "proxy-uid-dns-tcp", From: FromProxyUID, Proto: TCP, To: Peer, Port: 53},
	{Name: "proxy-gid-dns-tcp", From: FromProxyGID, Proto: TCP, To: Peer, Port: 53},
	{Name: "proxy-dns-udp-loopback", From: FromProxy, Proto: UDP, To: Loopback, Port: 53},
	{Name: "proxy-dns-tcp-loopback", From: FromProxy, Proto: TCP, To: Loopback, Port: 53},
}

// groupFlows are those of an app in another group.
var groupFlows = []Flow{
	{Name: "group-peer", From: FromGroup, Proto: TCP, To: Peer, Port: 8080},
	{Name: "group-service", From: FromGroup, Proto: TCP, To: Service, Port: 80},
	{Name: "group-pod", From: FromGroup, Proto: TCP, To: Pod, Port: 8080},
	{Name: "group-dns-udp", From: FromGroup, Proto: UDP, To: Peer, Port: 53},
	{Name: "group-dns-tcp", From: FromGroup, Proto: TCP, To: Peer, Port: 53},
	{Name: "group-dns-udp-loopback", From: FromGroup, Proto: UDP, To: Loopback, Port: 53},
}

// zoneFlows show the conntrack zones of DNS capture.
var zoneFlows = []Flow{
	{Name: "app-dns-answer-by-uid", From: FromApp, Proto: UDP, To: Peer, Port: 53, As: FromProxyUID},
	{Name: "app-dns-answer-by-gid", From: FromApp, Proto: UDP, To: Peer, Port: 53, As: FromProxyGID},
	{Name: "app-dns-zone", From: FromApp, Proto: UDP, To: Peer, Port: 53, Kind: Zone},
	{Name: "app-dns-vm-zone", From: FromApp, Proto: UDP, To: VM, Port: 53, Kind: Zone},
	{Name: "group-dns-zone", From: FromGroup, Proto: UDP, To: Peer, Port: 53, Kind: Zone},
	{Name: "proxy-uid-dns-zone", From: FromProxyUID, Proto: UDP, To: Peer, Port: 53, Kind: Zone},
	{Name: "proxy-gid-dns-zone", From: FromProxyGID, Proto: UDP, To: Peer, Port: 53, Kind: Zone},
	{Name: "proxy-uid-dns-zones", From: FromProxyUID, Proto: UDP, To: Peer, Port: 53, Kind: Zones},
	{Name: "proxy-gid-dns-zones", From: FromProxyGID, Proto: UDP, To: Peer, Port: 53, Kind: Zones},
}
