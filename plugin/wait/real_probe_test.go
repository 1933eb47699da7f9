package wait

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// TestProbe runs the built program in pods with rules, with every backend and every family.
func TestProbe(t *testing.T) {
	for _, kind := range []struct {
		name     string
		families []testnet.Family
	}{
		{"dual stack", nil}, {"IPv4", []testnet.Family{testnet.IPv4}}, {"IPv6", []testnet.Family{testnet.IPv6}},
	} {
		for _, backend := range []netfilter.Backend{netfilter.Nftables, netfilter.IptablesNFT, netfilter.IptablesLegacy} {
			t.Run(kind.name+"/"+string(backend), func(t *testing.T) {
				lab, n := pod(t, testnet.Options{Families: kind.families})
				for _, c := range []struct {
					settings string
					flags    []string
				}{
					{`{}`, nil},
					{`{"mode": "TPROXY"}`, nil},
					{`{"dnsCapture": true, "dropInvalid": true}`, nil},
					{`{"inboundPort": 15106, "outboundPort": 15101}`, []string{"--inbound-port=15106", "--outbound-port=15101"}},
				} {
					apply(t, n, backend, rulesOf(t, c.settings))
					var names []string
					for _, family := range lab.Families() {
						names = append(names, family.String())
					}
					for _, user := range []int{proxy, someone} {
						args := append([]string{"--mode=probe", "--timeout=60", "--proxy-uid=1337"}, c.flags...)
						got := runIn(t, lab.Path, user, args...)
						got.expect(t, exitReady, append(names, fmt.Sprintf("user %d", user))...)
						if strings.Contains(got.stdout, "IPv6") != slices.Contains(names, "IPv6") ||
							strings.Contains(got.stdout, "IPv4") != slices.Contains(names, "IPv4") {
							t.Errorf("other families than %q were probed: %s", names, got)
						}
					}
				}
				// The proxy runs as the same high-numbered user as the probe.
				apply(t, n, backend, rulesOf(t, `{"proxyUID": 1000660001}`))
				runIn(t, lab.Path, someone, "--mode=probe", "--timeout=60", "--proxy-uid=1000660001").expect(t, exitReady,
					"as the proxy's user 1000660001")
			})
		}
	}
}

// TestProbeFails runs the program in pods without rules, or with other ones: it must never succeed.
func TestProbeFails(t *testing.T) {
	all := rulesOf(t, `{}`)
	only := func(family redirect.Family) redirect.RuleSet {
		part := all
		part.Tables = slices.DeleteFunc(slices.Clone(all.Tables),
			func(table redirect.Table) bool { return table.Family != family })
		return part
	}
	for _, c := range []struct {
		name  string
		rules redirect.RuleSet
		user  int
		says  []string
	}{
		{"none, proxy", redirect.RuleSet{}, proxy,
			[]string{"IPv4: a connection to 127.0.0.6:15002 is not redirected to port 15006",
				"IPv6: a connection to [::6]:15002"}},
		{"none, other", redirect.RuleSet{}, someone,
			[]string{"IPv4: a connection to 192.0.2.1:15002 is not redirected to port 15001",
				"IPv6: a connection to [2001:db8::1]:15002"}},
		{"IPv4 only, proxy", only(redirect.IPv4), proxy, []string{": IPv6: a connection"}},
		{"IPv4 only, other", only(redirect.IPv4), someone, []string{": IPv6: a connection"}},
		{"IPv6 only, proxy", only(redirect.IPv6), proxy, []string{": IPv4: a connection"}},
		{"IPv6 only, other", only(redirect.IPv6), someone, []string{": IPv4: a connection"}},
		{"other inbound port", rulesOf(t, `{"inboundPort": 15106}`), proxy, []string{"IPv4", "IPv6"}},
		{"other outbound port", rulesOf(t, `{"outboundPort": 15101}`), someone, []string{"IPv4", "IPv6"}},
		{"ports the wrong way round, proxy", rulesOf(t, `{"inboundPort": 15001, "outboundPort": 15006}`), proxy,
			[]string{"IPv4", "IPv6"}},
		{"ports the wrong way round, other", rulesOf(t, `{"inboundPort": 15001, "outboundPort": 15006}`), someone,
			[]string{"IPv4", "IPv6"}},
		{"another proxy user", rulesOf(t, `{"proxyUID": 2000, "proxyGID": 2000}`), proxy, []string{"IPv4", "IPv6"}},
		{"exempt user", rulesOf(t, `{"proxyUID": 1000660001}`), someone, []string{"IPv4", "IPv6"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lab, n := pod(t, testnet.Options{})
			if len(c.rules.Tables) > 0 {
				apply(t, n, netfilter.Nftables, c.rules)
			}
			probeIn(t, lab.Path, c.user, c.says, "", "--mode=probe", "--timeout=2").expect(t, exitNotReady,
				append(c.says, "gave up after 2s")...)
			if sent := forwarded(t, lab.PeerPath); !slices.Equal(sent, []string{"0", "0"}) {
				t.Errorf("the next hop sent packets on: %q", sent)
			}
		})
	}
}

// TestProbeOfOneFamily has rules of one family in a pod with both. The probe expects a family's rules only if a flag,
// or the mark of its own network namespace, says that it is captured.
func TestProbeOfOneFamily(t *testing.T) {
	v4, v6 := rulesOf(t, `{"families": "IPv4"}`), rulesOf(t, `{"families": "IPv6"}`)
	byProxy := []string{"--families=proxy"}
	const lacks4, lacks6, has4, has6 = "IPv4: a connection", "IPv6: a connection", "IPv4 to port", "IPv6 to port"
	own := func(families string) func(record.NetNS) []string {
		return func(id record.NetNS) []string { return marked("initialized", id, line(annotation.Families, families)) }
	}
	another := func(id record.NetNS) []string { return own("IPv4")(id + "1") }
	nobody := func(record.NetNS) []string { return []string{line(annotation.Families, "IPv4")} }
	for _, c := range []struct {
		name      string
		rules     redirect.RuleSet
		flags     []string
		mark      func(record.NetNS) []string
		code      int
		says, not string
	}{
		{"told nothing", v4, nil, nil, exitNotReady, lacks6, lacks4},
		{"all", v4, []string{"--families=all"}, nil, exitNotReady, lacks6, lacks4},
		{"proxy", v4, byProxy, nil, exitReady, has4, has6},
		{"proxy, rules of IPv6", v6, byProxy, nil, exitNotReady, lacks4, lacks6},
		{"proxy, no rules", redirect.RuleSet{}, byProxy, nil, exitNotReady, lacks4, lacks6},
		{"its mark", v4, nil, own("IPv4"), exitReady, has4, has6},
		{"its mark, IPv6", v6, byProxy, own("IPv6"), exitReady, has6, has4},
		{"its mark, both", v4, byProxy, own("none"), exitNotReady, lacks6, lacks4},
		{"mark of another", v4, nil, another, exitNotReady, lacks6, lacks4},
		{"no mark", v4, nil, nobody, exitNotReady, lacks6, lacks4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lab, n := pod(t, testnet.Options{})
			if len(c.rules.Tables) > 0 {
				apply(t, n, netfilter.Nftables, c.rules)
			}
			args := append([]string{"--mode=probe", "--timeout=" + map[int]string{exitReady: "60", exitNotReady: "2"}[c.code]},
				c.flags...)
			if c.mark != nil {
				args = append(args, "--file="+newVolume(t, c.mark(identity(t, n))...).file())
			}
			got := probeIn(t, lab.Path, someone, []string{c.says}, c.not, args...)
			got.expect(t, c.code, c.says)
			if strings.Contains(got.stdout+got.message, c.not) {
				t.Errorf("says %q: %s", c.not, got)
			}
		})
	}
	lab, n := pod(t, testnet.Options{Families: []testnet.Family{testnet.IPv6}})
	apply(t, n, netfilter.Nftables, v6)
	runIn(t, lab.Path, proxy, "--mode=probe", "--timeout=60", "--families=proxy").expect(t, exitReady, has6)
}

// forwarded returns how many IPv4 and IPv6 packets the network namespace has forwarded.
func forwarded(t *testing.T, netns string) []string {
	t.Helper()
	out, err := exec.Command("nsenter", "--net="+netns, "cat", "/proc/net/snmp", "/proc/net/snmp6").Output()
	await.Must(t, err)
	lines := strings.Split(string(out), "\n")
	v4 := strings.Fields(lines[1])[slices.Index(strings.Fields(lines[0]), "ForwDatagrams")]
	for _, line := range lines {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "Ip6OutForwDatagrams" {
			return []string{v4, fields[1]}
		}
	}
	t.Fatalf("no counter of IPv6 in %s", out)
	return nil
}

// TestLateRules writes the rules while the program waits.
func TestLateRules(t *testing.T) {
	for _, user := range []int{proxy, someone} {
		t.Run(fmt.Sprint(user), func(t *testing.T) {
			t.Parallel()
			lab, n := pod(t, testnet.Options{})
			c, finish := commandIn(t, lab.Path, user, "--mode=any", "--file=/nonexistent/annotations", "--timeout=60")
			started(t, c, "IPv6: a connection")
			apply(t, n, netfilter.Nftables, rulesOf(t, `{}`))
			_ = c.Wait()
			finish().expect(t, exitReady, "are redirected")
		})
	}
}

// TestHeldPort has a listener on the probe's port, at every address that conflicts.
func TestHeldPort(t *testing.T) {
	for _, user := range []struct {
		uid  int
		port string
	}{{proxy, "15006"}, {someone, "15001"}} {
		for _, address := range []string{"0.0.0.0", "127.0.0.1", "::", "::1"} {
			t.Run(fmt.Sprint(user.uid, address), func(t *testing.T) {
				t.Parallel()
				lab, n := pod(t, testnet.Options{})
				apply(t, n, netfilter.Nftables, rulesOf(t, `{}`))
				var listener net.Listener
				var err error
				lab.InPod(func() { listener, err = net.Listen("tcp", net.JoinHostPort(address, user.port)) })
				await.Must(t, err)
				defer listener.Close()
				runIn(t, lab.Path, user.uid, "--mode=probe").expect(t, exitNotReady, "port "+user.port+" is already held")
				runIn(t, lab.Path, user.uid, "--file=/nonexistent").expect(t, exitNotReady, "port "+user.port+" is already held",
					"no such file")
				v := newVolume(t, marked("initialized", identity(t, n))...)
				runIn(t, lab.Path, user.uid, "--mode=any", "--file="+v.file()).expect(t, exitReady, "for this network namespace")
				v.set(marked("initialized", identity(t, n)+"1")...)
				runIn(t, lab.Path, user.uid, "--mode=any", "--timeout=1", "--file="+v.file()).expect(t, exitNotReady, user.port,
					"another network namespace")
			})
		}
	}
}

// TestProbeLeavesNothing checks that the ports are free again at once.
func TestProbeLeavesNothing(t *testing.T) {
	lab, n := pod(t, testnet.Options{})
	apply(t, n, netfilter.Nftables, rulesOf(t, `{}`))
	for range 20 {
		runIn(t, lab.Path, proxy, "--mode=probe", "--timeout=60").expect(t, exitReady)
	}
	for _, name := range []string{"tcp", "tcp6"} {
		out, err := exec.Command("nsenter", "--net="+lab.Path, "cat", "/proc/net/"+name).Output()
		await.Must(t, err)
		port := strings.ToUpper(strconv.FormatInt(15006, 16))
		if strings.Contains(string(out), ":"+port) {
			t.Errorf("a socket is left:\n%s", out)
		}
	}
}

// TestNoAddress has a pod without addresses, so nothing can be probed.
func TestNoAddress(t *testing.T) {
	t.Parallel()
	path, _, end := newNetNS(t)
	defer end()
	runIn(t, path, proxy, "--mode=probe", "--timeout=1").expect(t, exitNotReady, "no global address")
}

// TestRanges checks that the error names the annotation with which a probe as another user cannot work.
func TestRanges(t *testing.T) {
	t.Parallel()
	lab, n := pod(t, testnet.Options{})
	apply(t, n, netfilter.Nftables, rulesOf(t, `{"includeOutboundIPRanges": "10.96.0.0/16"}`))
	v := newVolume(t, line(annotation.IncludeOutboundIPRanges, "10.96.0.0/16"))
	runIn(t, lab.Path, someone, "--mode=any", "--timeout=3", "--file="+v.file()).expect(t, exitNotReady,
		`captures only "10.96.0.0/16"`)
	runIn(t, lab.Path, proxy, "--mode=probe", "--timeout=60", "--file="+v.file()).expect(t, exitReady)
}

// TestAnswerOfAnother checks that a connection from somebody else, which arrives first, does not count.
func TestAnswerOfAnother(t *testing.T) {
	a := attempt{knownFamilies[0], netip.AddrPort{}, netip.MustParseAddrPort("127.0.0.6:15002"),
		netip.MustParseAddrPort("127.0.0.1:0")}
	listener, err := a.open(context.Background())
	await.Must(t, err)
	a.listen = listener.Addr().(*net.TCPAddr).AddrPort()
	conn, err := net.Dial("tcp4", a.listen.String())
	await.Must(t, err)
	defer conn.Close()
	time.AfterFunc(200*time.Millisecond, func() { listener.Close() })
	if err := a.accept(listener, 1); err == nil || !strings.Contains(err.Error(), "something else answered") {
		t.Errorf("accepted what was not its own: %v", err)
	}
}

// TestNotRedirected checks that the probe's own connection does not count if connection tracking shows that it arrived
// without a redirection.
func TestNotRedirected(t *testing.T) {
	lab, n := pod(t, testnet.Options{})
	apply(t, n, netfilter.Nftables, rulesOf(t, `{}`))
	for i, f := range knownFamilies {
		a := attempt{f, netip.AddrPort{}, netip.AddrPortFrom(f.passthrough, dialPort), netip.AddrPortFrom(f.loopback, 15006)}
		var listener *net.TCPListener
		var own net.Conn
		var err, failed error
		lab.InPod(func() {
			listener, err = a.open(context.Background())
			own, failed = net.Dial(f.network, a.listen.String())
		})
		await.Must(t, err)
		await.Must(t, failed)
		err = a.accept(listener, own.LocalAddr().(*net.TCPAddr).AddrPort().Port())
		if want := "it arrived as one to " + []string{"127.0.0.1:15006", "[::1]:15006"}[i]; err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
		own.Close()
		listener.Close()
	}
}
