package testnet

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReset leaves half of a connection at the peer, once established and once not, and then opens one with the same
// addresses and ports. Reset must have removed the half: the peer would otherwise take the new one for the old.
func TestReset(t *testing.T) {
	for name, drop := range map[string]string{
		"established": "chain out { type filter hook output priority 0; tcp flags & rst == rst drop; }; ",
		"begun":       "chain in { type filter hook input priority 0; tcp sport 8080 drop; }; ",
	} {
		l := newLab(t, Options{})
		if err := l.Use(NoRules); err != nil {
			t.Fatal(err)
		}
		command := func(args ...string) {
			if out, err := l.PodCommand("nft", args...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		command("table inet drops { " + drop + "}")
		flow := Flow{Name: "app-peer", From: FromApp, Proto: TCP, To: Peer, Port: 8080}
		for _, family := range l.Families() {
			port := nextPort()
			ask := func() (o Outcome) {
				c, err := l.unbound(flow, family, Silent)
				if err == nil {
					err = unix.Bind(c.fd, sockaddr(netip.AddrPortFrom(Pod.Addr(family), port)))
				}
				if err != nil {
					t.Fatal(err)
				}
				l.rounds.during(append(l.servers, l.sidecar.server), func() { o = c.exchange(flow, family) })
				c.close()
				return o
			}
			ask()
			command("flush ruleset")
			if err := l.Reset(); err != nil {
				t.Fatal(err)
			}
			if got := ask(); got.Landed != AtPeer {
				t.Errorf("%s, %s: %s", name, family, got)
			}
			command("table inet drops { " + drop + "}")
		}
	}
}
