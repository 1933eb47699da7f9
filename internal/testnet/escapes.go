package testnet

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/istio-pod-network/controller/internal/escape"
	"golang.org/x/sys/unix"
)

// escapePrefix is the start of the kind of a flow that is an attempt of package escape. The attempt's name follows.
const escapePrefix = "escape-"

// attempt returns the attempt of a kind of flow, if it is one.
func (k Kind) attempt() (escape.Attempt, bool) {
	name, found := strings.CutPrefix(string(k), escapePrefix)
	if !found {
		return escape.Attempt{}, false
	}
	if i := slices.IndexFunc(escape.WithNetRaw, func(a escape.Attempt) bool { return a.Name == name }); i >= 0 {
		return escape.WithNetRaw[i], true
	}
	return escape.Named(name)
}

// escapeFlows are attempts to get around the sidecar. No other flow uses the pod's port of the inbound one.
var escapeFlows = []Flow{
	{Name: "escape-lo", From: FromApp, Proto: TCP, To: Peer, Port: 8080, Src: Pod, Kind: escapePrefix + "lo"},
	{Name: "escape-lo-9090", From: FromApp, Proto: TCP, To: Outside, Port: 9090, Src: Pod, Kind: escapePrefix + "lo"},
	{Name: "escape-freebind", From: FromApp, Proto: TCP, To: Peer, Port: 80, Src: Pod, Kind: escapePrefix + "freebind"},
	{Name: "escape-freebind-443", From: FromApp, Proto: TCP, To: Service, Port: 443, Src: Pod,
		Kind: escapePrefix + "freebind"},
	{Name: "escape-helper", From: FromApp, Proto: TCP, To: Service, Port: 80, Src: Pod, Kind: escapePrefix + "helper"},
	{Name: "escape-helper-443", From: FromApp, Proto: TCP, To: Outside, Port: 443, Src: Pod,
		Kind: escapePrefix + "helper"},
	{Name: "escape-helper-53", From: FromApp, Proto: TCP, To: Peer, Port: 53, Src: Pod, Kind: escapePrefix + "helper"},
	{Name: "escape-fragments", From: FromApp, Proto: TCP, To: Service, Port: 443, Src: Pod,
		Kind: escapePrefix + "fragments"},
	{Name: "escape-finished", From: FromApp, Proto: TCP, To: Outside, Port: 80, Src: Pod,
		Kind: escapePrefix + "finished"},
	{Name: "escape-mptcp", From: FromApp, Proto: TCP, To: Service, Port: 80, Src: Pod, Kind: escapePrefix + "mptcp"},
	{Name: "escape-fastopen", From: FromApp, Proto: TCP, To: Service, Port: 9443, Src: Pod,
		Kind: escapePrefix + "fastopen"},
	{Name: "escape-simultaneous", From: FromApp, Proto: TCP, To: Peer, Port: notServed, Src: Pod,
		Kind: escapePrefix + "simultaneous"},
	{Name: "escape-address", From: FromApp, Proto: TCP, To: Peer, Port: 9443, Src: Net1, Kind: escapePrefix + "address"},
	{Name: "escape-loopback", From: FromApp, Proto: TCP, To: Peer, Port: 443, Src: Passthrough,
		Kind: escapePrefix + "loopback"},
	{Name: "escape-udp", From: FromApp, Proto: TCP, To: Peer, Port: 8080, Src: Pod, Kind: escapePrefix + "udp"},
	{Name: "escape-icmp", From: FromApp, Proto: TCP, To: Peer, Port: 80, Src: Pod, Kind: escapePrefix + "icmp"},
	{Name: "escape-inbound", From: FromPeer, Proto: TCP, To: Pod, Port: 7002, Src: Peer, Kind: escapePrefix + "inbound"},
	{Name: "escape-vm", From: FromVM, Proto: TCP, To: Outside, Port: 443, Src: VM, Kind: escapePrefix + "helper"},
}

// deviceEscapeFlows start on net1, which must be excluded.
var deviceEscapeFlows = []Flow{
	{Name: "escape-device", From: FromApp, Proto: TCP, To: Peer, Port: 8080, Src: Pod, Kind: escapePrefix + "device"},
	{Name: "escape-dns", From: FromApp, Proto: UDP, To: Peer, Port: 53, Src: Pod, Kind: escapePrefix + "dns"},
}

// escapes returns the attempts that make sense with the settings.
func (s settings) escapes() []Flow {
	if named(s.excludeInterfaces, "net1") {
		return slices.Concat(escapeFlows, deviceEscapeFlows)
	}
	return slices.Clone(escapeFlows)
}

// notServed is a port on which the peer does not listen, for attempts that need one.
const notServed = 7004

// neverCaptured is a port on which the pod does not listen, and which is captured only if the inbound ports list it.
const neverCaptured = 15090

// escape makes an attempt as its party, without privileges. It does not matter who blocks it, or how.
func (l *Lab) escape(f Flow, a escape.Attempt, family Family, silent int) Outcome {
	_, closeAll, o := l.escaped(f, a, family, silent, nil)
	closeAll()
	return o
}

// Split makes the attempts among the flows in two steps: all create their entries, then it calls between, and then they
// use the entries.
func (l *Lab) Split(flows []Flow, between func()) []Result {
	var results []Result
	for _, family := range l.options.Families {
		for _, f := range flows {
			if f.Escapes() && f.In(family) {
				results = append(results, Result{Flow: f, Family: family, Want: l.settings.expect(f, family)})
			}
		}
	}
	l.prepareParties(results)
	l.rounds.during(append(l.servers, l.sidecar.server), func() { l.split(results, between) })
	return results
}

func (l *Lab) split(results []Result, between func()) {
	var all sync.WaitGroup
	goOn := make(chan struct{})
	for i := range results { // one after the other, because helped attempts use the same port
		r, left := &results[i], make(chan struct{})
		arrive := sync.OnceFunc(func() { close(left) })
		all.Go(func() {
			defer arrive()
			a, _ := r.Flow.Kind.attempt()
			_, closeAll, o := l.escaped(r.Flow, a, r.Family, Silent, func() {
				arrive()
				<-goOn
			})
			closeAll()
			r.Got = o
		})
		<-left
	}
	between()
	close(goOn)
	all.Wait()
}

// escaped is escape, but leaves the connection open until closeAll is called. left, if not nil, is called between the
// two steps of the attempt.
func (l *Lab) escaped(
	f Flow, a escape.Attempt, family Family, silent int, left func(),
) (c *client, closeAll func(), o Outcome) {
	place, closeAll := l.placeOf(f, a, family, silent)
	place.Left = left
	from := identity{l.pod, ids{appID, appID}}
	switch {
	case f.From.inPod():
		from.ids = f.From.ids(l.settings)
	case f.From == FromVM:
		from.node = l.vm
	}
	var capabilities []uint
	if a.NetRaw {
		capabilities = []uint{unix.CAP_NET_RAW}
	}
	t, err := startThread(from.node.ns, l.hostIDs(from), capabilities...)
	if err != nil {
		return nil, closeAll, failure(err)
	}
	defer t.stop()
	fd := -1
	t.do(func() { fd, err = a.Run(place) })
	if errors.Is(err, escape.ErrNotMade) {
		return nil, closeAll, Outcome{Landed: Failed, Note: err.Error()}
	} else if err != nil {
		return nil, closeAll, Outcome{Landed: Kept}
	}
	c = &client{fd: fd, rounds: l.rounds, silent: silent}
	closeCalls := closeAll
	closeAll = func() {
		c.close()
		closeCalls()
	}
	if a.Inbound {
		return c, closeAll, Outcome{Landed: AtApp}
	}
	if o := c.answered(f); o.Landed == AtPeer {
		// If the first step was redirected, conntrack finds the ports of the second step in use, and changes them.
		o.Source = strings.TrimSuffix(o.Source, portChanged)
		return c, closeAll, o
	}
	return c, closeAll, Outcome{Landed: Kept}
}

// placeOf returns the place of the flow's attempt, and the function that ends it.
func (l *Lab) placeOf(f Flow, a escape.Attempt, family Family, silent int) (place escape.Place, closeAll func()) {
	own, server, device := nextPort(), f.Port, ""
	switch {
	case a.Inbound:
		own, server = f.Port, own
	case a.Helped:
		own = neverCaptured
	case a.NeedsDevice:
		device = "net1"
	}
	pod, to := f.Src, f.To
	if a.Inbound {
		pod, to = f.To, f.Src
	}
	var calls []*endpoint
	return escape.Place{
			Pod: netip.AddrPortFrom(pod.Addr(family), own), Server: netip.AddrPortFrom(to.Addr(family), server), Device: device,
			Until: func(try func() (bool, error)) error { return l.rounds.until(silent, try) },
			Send:  l.sendFromPeer,
			Call: func(from, to netip.AddrPort) error {
				e, err := l.call(from, to)
				if err == nil {
					calls = append(calls, e)
				}
				return err
			},
		}, func() {
			for _, e := range calls {
				l.hangUp(e)
			}
		}
}

// sendFromPeer sends from the peer a packet that its kernel has no state of, and returns when it has arrived.
func (l *Lab) sendFromPeer(what escape.Packet, from, to netip.AddrPort) (err error) {
	l.peer.root.do(func() { err = escape.Send(what, from, to) })
	if err != nil {
		return err
	}
	_ = l.rounds.until(Silent, func() (bool, error) { return false, nil })
	return nil
}

// call connects from the peer, and answers as on connections that the peer accepts.
func (l *Lab) call(from, to netip.AddrPort) (e *endpoint, err error) {
	peer := l.servers[1]
	e = &endpoint{landing: AtPeer, kind: tcpConn, port: from.Port()}
	peer.do(func() {
		if e.fd, err = escape.Call(from, to); err == nil {
			err = peer.add(e)
		}
	})
	return e, err
}

// hangUp ends such a connection, unless it has ended.
func (l *Lab) hangUp(e *endpoint) {
	peer := l.servers[1]
	peer.do(func() {
		if peer.sockets[e.fd] == e {
			peer.abort(e.fd)
		}
	})
}

// Escapes reports whether the flow is an attempt to get around the sidecar.
func (f Flow) Escapes() bool { return strings.HasPrefix(string(f.Kind), escapePrefix) }

// Harmless reports whether the flow is an attempt that never succeeds, with any rules.
func (f Flow) Harmless() bool {
	a, _ := f.Kind.attempt()
	return a.Harmless != ""
}

// EscapeKinds returns the kinds of flow that are attempts of package escape.
func EscapeKinds() (kinds []Kind) {
	for _, a := range escape.Attempts {
		kinds = append(kinds, Kind(escapePrefix+a.Name))
	}
	return kinds
}
