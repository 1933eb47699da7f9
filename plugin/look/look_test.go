package look

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/trace/tracetest"
)

// built is the program.
var built string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "look-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		built = filepath.Join(dir, name)
		if out, err := exec.Command("go", "build", "-o", built, "../istio-pod-network-look").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// What the kernel says of packets is what package trace predicts, for each sort of rules; CHECK finds nothing then, and
// nothing is left. A rule that is not there any more is found.
func TestTrace(t *testing.T) {
	p := newPod(t, testnet.Options{})
	differ := map[string]bool{}
	for _, profile := range testnet.BaseProfiles {
		p.apply(profile)
		before := p.listing()
		for _, packet := range packets {
			for _, family := range []testnet.Family{testnet.IPv4, testnet.IPv6} {
				what := fmt.Sprintf("%s: %s from %s to %s, %s, port %d", profile.Name, packet.proto, packet.from, packet.to, family,
					packet.port)
				to := netip.AddrPortFrom(packet.to.Addr(family), packet.port)
				told, status, stderr := p.look(p.args(packet.from, packet.proto, to.String())...)
				if status != 0 || told.Why != "" {
					t.Errorf("%s: status %d, %s, %s", what, status, stderr, told.Why)
					continue
				}
				way := p.rules.Trace(tracetest.Pod(), packetOf(t, packet.from, packet.proto, to, told))
				compared := p.rules.Compare(way, told)
				if compared.Differs != "" {
					t.Errorf("%s: %s\n%+v\n%s", what, compared.Differs, told, way.Table(false))
				}
				for _, wrong := range p.mutants() {
					without := p.rules
					without.RuleSet = wrong.rules
					way := without.Trace(tracetest.Pod(), packetOf(t, packet.from, packet.proto, to, told))
					if without.Compare(way, told).Differs != "" {
						differ[wrong.chain] = true
					}
				}
			}
		}
		if after := p.listing(); after != before {
			t.Errorf("%s: left behind:\n%s", profile.Name, after)
		}
		if err := p.netns.Check(p.made, p.rules.RuleSet); err != nil {
			t.Error(err)
		}
	}
	for _, chain := range []string{"ISTIO_OUTPUT", "ISTIO_INBOUND", "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT"} {
		if !differ[chain] {
			t.Errorf("no packet tells that %s lacks a rule", chain)
		}
	}
}

// Nobody receives the packet: neither who listens in the pod nor anybody outside.
func TestNobodyReceives(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.apply(testnet.BaseProfiles[0])
	// What leaves is counted behind the pod, and what arrives at a socket by the sockets' own counters.
	count := exec.Command("nsenter", "--net="+p.lab.PeerPath, "nft",
		"add table inet seen; add chain inet seen c { type filter hook prerouting priority -300; }; "+
			"add rule inet seen c tcp flags syn counter")
	if out, err := count.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	opened := p.passiveOpens()
	for _, to := range []testnet.Place{testnet.Outside, testnet.Pod} {
		for _, from := range []string{"uid:1000:1000", "uid:1337:1337"} {
			address := netip.AddrPortFrom(to.Addr(testnet.IPv4), 8080)
			if told, status, stderr := p.look(p.args(from, "tcp", address.String())...); status != 0 || told.Why != "" {
				t.Errorf("%d, %s %s", status, told.Why, stderr)
			}
		}
	}
	out, err := exec.Command("nsenter", "--net="+p.lab.PeerPath, "nft", "list", "table", "inet", "seen").Output()
	if err != nil || !strings.Contains(string(out), "counter packets 0 bytes 0") {
		t.Errorf("something has left the pod: %v, %s", err, out)
	}
	if now := p.passiveOpens(); now != opened {
		t.Errorf("somebody in the pod has been called: %s connections, before %s", now, opened)
	}
}

// passiveOpens is how many connections sockets of the pod have been asked for.
func (p *pod) passiveOpens() string {
	p.Helper()
	out, err := p.lab.PodCommand("cat", "/proc/net/snmp").Output()
	if err != nil {
		p.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == "Tcp:" {
			for i, field := range fields {
				if names != nil && names[i] == "PassiveOpens" {
					return field
				}
			}
			names = fields
		}
	}
	p.Fatalf("no PassiveOpens in %s", out)
	return ""
}

// What keeps the kernel from telling is said.
func TestNotTold(t *testing.T) {
	p := newPod(t, testnet.Options{UserNamespace: true})
	p.apply(testnet.BaseProfiles[0])
	own, elsewhere := testnet.Pod.Addr(testnet.IPv4).String()+":8080", "203.0.113.7:80"
	dropping := exec.Command("nsenter", "--net="+p.lab.PeerPath, "nft",
		"add table inet dropping; add chain inet dropping c { type filter hook postrouting priority 0; }; "+
			"add rule inet dropping c tcp dport 8081 drop")
	if out, err := dropping.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	other := p.args("outside", "tcp", own)
	other[2] = "--netns-id=boot/1/2"
	for want, args := range map[string][]string{
		"hostUsers: false":                   p.args("uid:1000:1000", "tcp", elsewhere),
		"has not come to the pod's rules":    p.args("outside", "tcp", strings.Replace(own, "8080", "8081", 1)),
		"not the one that the record is abo": other,
	} {
		told, status, stderr := p.lookOnce(args...)
		if status != 0 || !strings.Contains(told.Why, want) || told.Steps != nil {
			t.Errorf("%d, %+v %s; want %q", status, told, stderr, want)
		}
	}
	if told, status, stderr := p.look(p.args("outside", "tcp", own)...); status != 0 || told.Why != "" ||
		told.End.Where != report.Pod {
		t.Errorf("%d, %+v %s", status, told, stderr)
	}
}

// An older kernel would keep the table: it is not asked.
func TestOlderKernel(t *testing.T) {
	real := kernel
	t.Cleanup(func() { kernel = real })
	for release, owns := range map[string]bool{"5.12.0": true, "6.1.0-13-amd64": true, "5.11.22-generic": false,
		"4.18.0-553.el8": false, "": false} {
		kernel = func() string { return release }
		if _, got := ownsTables(); got != owns {
			t.Errorf("%q: %t", release, got)
		}
	}
	kernel = func() string { return "5.11.0" }
	told, err := (&question{}).trace()
	if err != nil || !strings.Contains(told.Why, "Linux 5.12") {
		t.Errorf("%+v, %v", told, err)
	}
}

// Without the capability it is not sent as somebody else.
func TestCapabilities(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.apply(testnet.BaseProfiles[0])
	cmd := exec.Command("capsh", append([]string{"--drop=cap_setuid", "--", "-c", `exec "$0" "$@"`, built},
		p.args("uid:1000:1000", "tcp", "203.0.113.7:80")...)...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "CAP_SETUID") ||
		!strings.Contains(string(out), "agent.securityContext.capabilities.add") {
		t.Errorf("%v: %s", err, out)
	}
}

// Another process' trace does not disturb, nor does one of everything; a second one in the same pod is told so.
func TestOthersTrace(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.apply(testnet.BaseProfiles[0])
	everything := "add table inet noisy; add chain inet noisy c { type filter hook output priority -500; }; " +
		"add rule inet noisy c meta nftrace set 1"
	if out, err := p.lab.PodCommand("nft", everything).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go p.lab.InPod(func() {
		defer close(stopped)
		flood(stop)
	})
	defer func() { close(stop); <-stopped }()
	told, status, stderr := p.look(p.args("uid:1000:1000", "tcp", "203.0.113.7:80")...)
	lost := strings.Contains(told.Why, "so much is traced")
	end := report.End{Where: report.Pod, To: "127.0.0.1:15001", Link: "lo"}
	if status != 0 || !lost && (told.Why != "" || told.End != end) {
		t.Errorf("%d, %+v %s", status, told, stderr)
	}
}

// flood sends datagrams to the pod itself until it is stopped.
func flood(stop chan struct{}) {
	c, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		return
	}
	defer c.Close()
	for {
		select {
		case <-stop:
			return
		default:
			_, _ = c.Write([]byte("x"))
		}
	}
}

func TestMisuse(t *testing.T) {
	for args, want := range map[string]string{
		"":                              "command",
		"rules":                         "0 flags are given",
		"drop":                          "command",
		"trace":                         "0 flags are given",
		"trace --from=outside":          "1 flags are given",
		"trace --from=uid:1":            "--from",
		"trace --from=uid:1:2:3":        "--from",
		"trace --from=uid:4294967295:1": "--from",
		"trace --from=uid:-1:1":         "--from",
		"trace --proto=icmp":            "--proto",
		"trace --to=1.2.3.4":            "--to",
		"trace --to=1.2.3.4:0":          "--to",
		"trace --to=[fe80::1%eth0]:1":   "--to",
		"trace --to=0.0.0.0:1":          "--to",
		"trace --netns=":                "--netns",
		"trace --netns=a --netns-id=b --from=outside --proto=tcp --to=1.2.3.4:5 x": "",
	} {
		out, err := exec.Command(built, strings.Fields(args)...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
	if out, err := exec.Command(built, "--help").Output(); err != nil || !bytes.Contains(out, []byte(TableName)) {
		t.Errorf("%v: %s", err, out)
	}
}
