package testnet

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// sidecar is the stand-in for the proxy: outbound, inbound and DNS listeners with the proxy's identity. In TPROXY mode
// that is root with the proxy's group, as Istio's injector configures it, unless the lab's options say otherwise, and
// the inbound listener is transparent.
type sidecar struct {
	server  *server
	wilds   []netip.Addr
	inbound uint16
	tproxy  bool
	replies []int
}

// startSidecar starts the sidecar of the settings.
func (l *Lab) startSidecar(s settings) (*sidecar, error) {
	party := FromProxy
	if s.tproxy && !l.options.OwnUser {
		party = FromProxyGID
	}
	loop, err := startServer(l.pod.ns, l.hostIDs(identity{l.pod, party.ids(s)}))
	if err != nil {
		return nil, err
	}
	car := &sidecar{server: loop, wilds: l.wildcards(l.pod), inbound: s.inboundPort, tproxy: s.tproxy}
	replies := map[netip.Addr]map[string]int{}
	for _, wild := range car.wilds {
		if replies[wild], err = l.replySockets(s, wild); err != nil {
			break
		}
		for _, fd := range replies[wild] {
			car.replies = append(car.replies, fd)
		}
	}
	if err == nil {
		loop.do(func() {
			for _, wild := range car.wilds {
				dns := loopbackOf(wild)
				err = errors.Join(err, loop.listen(AtOutbound, wild, s.outboundPort), loop.listen(AtDNS, dns, s.dnsPort),
					loop.receive(AtDNS, netip.AddrPortFrom(dns, s.dnsPort), replies[wild]))
			}
		})
	}
	if err = errors.Join(err, car.setInbound(true)); err != nil {
		car.stop()
		return nil, fmt.Errorf("starting the sidecar: %w", err)
	}
	return car, nil
}

func loopbackOf(wild netip.Addr) netip.Addr {
	if wild.Is6() {
		return netip.IPv6Loopback()
	}
	return Loopback.Addr(IPv4)
}

// replySockets creates sockets on the DNS port that have only the proxy's user, and only its group. A question may name
// the one from which the answer is sent: rules for answers match both owners, and this tests each of them alone.
func (l *Lab) replySockets(s settings, wild netip.Addr) (map[string]int, error) {
	sockets := map[string]int{}
	for _, party := range []Party{FromProxyUID, FromProxyGID} {
		t, err := l.threadOf(party, s)
		if err != nil {
			return nil, err
		}
		fd := -1
		t.do(func() {
			fd, err = (*server)(nil).bind(unix.SOCK_DGRAM, netip.AddrPortFrom(loopbackOf(wild), s.dnsPort), false)
		})
		if err != nil {
			return nil, fmt.Errorf("answering DNS as %q: %w", party, err)
		}
		sockets[string(party)] = fd
	}
	return sockets, nil
}

// setPlain opens the inbound listener again, without (plain) or with a transparent socket.
func (c *sidecar) setPlain(plain bool) error {
	c.server.do(func() { c.server.plain = plain })
	return c.setInbound(true)
}

// setInbound opens or closes the inbound listener.
func (c *sidecar) setInbound(open bool) (err error) {
	c.server.do(func() {
		for fd, e := range c.server.sockets {
			if e.landing == AtInbound && e.kind == tcpListener {
				c.server.remove(fd)
			}
		}
		for _, wild := range c.wilds {
			if open {
				err = errors.Join(err, c.server.listen(AtInbound, wild, c.inbound))
			}
		}
	})
	return err
}

func (c *sidecar) stop() {
	c.server.stop()
	for _, fd := range c.replies {
		unix.Close(fd)
	}
}

// TakeInbound has the app listen on the sidecar's inbound port instead of the sidecar, in one family, until giveBack is
// called. With capabilities its socket is transparent.
func (l *Lab) TakeInbound(family Family, capabilities ...uint) (giveBack func(), err error) {
	car, app := l.sidecar, l.servers[0]
	if err := car.setInbound(false); err != nil {
		return nil, err
	}
	wild := netip.IPv4Unspecified()
	if family == IPv6 {
		wild = netip.IPv6Unspecified()
	}
	if len(capabilities) == 0 {
		app.do(func() { err = app.listen(AtApp, wild, car.inbound) })
	} else {
		err = l.listenTransparently(netip.AddrPortFrom(wild, car.inbound), capabilities)
	}
	return func() {
		app.do(func() {
			for fd, e := range app.sockets {
				if e.port == car.inbound {
					app.abort(fd)
				}
			}
		})
		l.mustSetInbound(true)
	}, err
}
