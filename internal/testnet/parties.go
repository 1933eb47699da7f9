package testnet

// Party is who starts a flow: a namespace, and an identity in it.
type Party string

// The parties. Those in the pod differ by the user and group of their sockets.
const (
	FromApp      Party = "app"       // the app, 5000:5000
	FromRoot     Party = "root"      // an app that runs as root, 0:0
	FromProxy    Party = "proxy"     // the proxy's user and group
	FromProxyUID Party = "proxy-uid" // the proxy's user, with the app's group
	FromProxyGID Party = "proxy-gid" // the proxy's group as root: the TPROXY sidecar
	FromGroup    Party = "group"     // the app's user in another group, 5000:5100
	FromStock    Party = "stock"     // 1337:1337, if the settings name another proxy user
	FromPeer     Party = "peer"      // another pod
	FromVM       Party = "vm"        // a machine behind the pod's interface net1
)

// appID is the app's user and group, groupID the group of FromGroup.
const appID, groupID = 5000, 5100

// inPod reports whether the party is in the pod.
func (p Party) inPod() bool { return p != FromPeer && p != FromVM }

// ids returns the party's user and group as seen in its namespace.
func (p Party) ids(s settings) ids {
	switch p {
	case FromApp:
		return ids{appID, appID}
	case FromProxy:
		return ids{s.proxyUID, s.proxyGID}
	case FromProxyUID:
		return ids{s.proxyUID, appID}
	case FromProxyGID:
		return ids{0, s.proxyGID}
	case FromGroup:
		return ids{appID, groupID}
	case FromStock:
		return ids{1337, 1337}
	}
	return ids{}
}

// nodeOf returns the party's namespace.
func (l *Lab) nodeOf(party Party) *node {
	switch party {
	case FromPeer:
		return l.peer
	case FromVM:
		return l.vm
	}
	return l.pod
}

// identity is a key: parties with the same namespace and IDs share one thread.
type identity struct {
	node *node
	ids  ids
}

// threadOf returns the party's thread, and starts it if necessary.
func (l *Lab) threadOf(party Party, s settings) (*thread, error) {
	key := identity{l.nodeOf(party), party.ids(s)}
	if t := l.threads[key]; t != nil {
		return t, nil
	}
	t, err := startThread(key.node.ns, l.hostIDs(key))
	if err == nil {
		l.threads[key] = t
	}
	return t, err
}

// hostIDs returns an identity's IDs as the host sees them.
func (l *Lab) hostIDs(who identity) ids {
	if who.node == l.pod && l.options.UserNamespace {
		return ids{userShift + who.ids.uid, userShift + who.ids.gid}
	}
	return who.ids
}
