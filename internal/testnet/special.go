package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/istio-pod-network/controller/internal/escape"
	"golang.org/x/sys/unix"
)

// zones has the app query a DNS server, and then the flow's party query the same server from the same source port. In a
// single conntrack zone the second query would belong to the first one's connection, and be redirected too.
func (l *Lab) zones(f Flow, family Family, silent int) Outcome {
	first := f
	first.From, first.Src, first.Kind = FromApp, Pod, Plain
	app, err := l.newClient(first, family, silent)
	if err != nil {
		return failure(err)
	}
	source := app.local()
	asked := app.exchange(first, family)
	app.close()

	second := f
	second.Kind = Plain
	proxy, err := l.unbound(second, family, silent)
	if err != nil {
		return failure(err)
	}
	defer proxy.close()
	err = unix.Bind(proxy.fd, sockaddr(source))
	for deadline := time.Now().Add(time.Minute); errors.Is(err, unix.EADDRINUSE) && time.Now().Before(deadline); {
		// A child process has a copy of the app's socket between its fork and its exec.
		time.Sleep(time.Millisecond)
		err = unix.Bind(proxy.fd, sockaddr(source))
	}
	if err != nil {
		return failure(fmt.Errorf("binding to the app's port: %w", err))
	}
	o := proxy.exchange(second, family)
	o.Note = "app " + string(asked.Landed)
	for zone := range uint16(appZone) { // Istio uses zone 1
		e, found, err := l.query(source, netip.AddrPortFrom(f.To.Addr(family), f.Port), zone)
		if err != nil {
			return failure(err)
		}
		if asked.Landed == AtDNS && found {
			o.Note += ", another zone " + map[bool]string{true: "replied", false: "unreplied"}[e.replied]
		}
	}
	return o
}

// appZone is the conntrack zone of the packets of the sidecar's DNS listener.
const appZone = 2

// zone returns the conntrack zone of a DNS query as a note.
func (l *Lab) zone(f Flow, family Family, silent int) Outcome {
	c, err := l.newClient(f, family, silent)
	if err != nil {
		return failure(err)
	}
	defer c.close()
	o := c.exchange(f, family)
	for zone := range uint16(appZone + 1) {
		_, found, err := l.query(c.local(), netip.AddrPortFrom(f.To.Addr(family), f.Port), zone)
		if err != nil {
			return failure(err)
		}
		if found {
			o.Note += fmt.Sprintf("zone %d", zone)
		}
	}
	return o
}

// noSocket makes the pod's kernel send a packet that belongs to no process: a connection that the app has closed, and
// that conntrack has forgotten, is in TIME_WAIT and answers a late FIN with an ACK, a new connection for conntrack. On
// lo, Istio's rules let it pass because it is not the proxy's. A rule that needs a socket to decide that would not.
func (l *Lab) noSocket(f Flow, family Family, silent int) Outcome {
	dst := netip.AddrPortFrom(f.To.Addr(family), f.Port)
	src, err := l.timeWait(f, dst, family, silent)
	if err != nil {
		return failure(err)
	}
	if err := l.forget(src, dst); err != nil {
		return failure(err)
	}
	fd, err := l.pod.root.socket(domain(dst.Addr()), unix.SOCK_RAW, unix.IPPROTO_TCP)
	if err != nil {
		return failure(err)
	}
	defer unix.Close(fd)
	late := escape.Segment(dst, src, flagFIN|flagACK)
	if err := unix.Sendto(fd, late, 0, sockaddr(netip.AddrPortFrom(src.Addr(), 0))); err != nil {
		return failure(err)
	}
	answer, err := l.sniff(fd, silent, func(seen sniffed) bool { return seen.srcPort == src.Port() })
	switch {
	case errors.Is(err, errSilence):
		return Outcome{Landed: Silence}
	case err != nil:
		return failure(err)
	case answer.dstPort == f.Port:
		return Outcome{Landed: AtApp}
	case answer.dstPort == l.settings.outboundPort:
		return Outcome{Landed: AtOutbound}
	}
	return Outcome{Landed: Failed, Note: fmt.Sprintf("went to port %d", answer.dstPort)}
}

// timeWait leaves a connection in TIME_WAIT and returns its local address.
func (l *Lab) timeWait(f Flow, dst netip.AddrPort, family Family, silent int) (netip.AddrPort, error) {
	c, err := l.newClient(f, family, silent)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if err := c.connect(dst); err != nil {
		c.close()
		return netip.AddrPort{}, err
	}
	defer unix.Close(c.fd)
	src := c.local()
	if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil { // the side that closes first gets TIME_WAIT
		return src, err
	}
	for n := 1; n > 0 && err == nil; { // until the server has closed, too
		var rest [64]byte
		n, err = c.read(rest[:])
	}
	return src, err
}
