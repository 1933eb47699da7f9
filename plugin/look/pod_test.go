package look

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
)

// pod is a pod in the laboratory, with its rules.
type pod struct {
	testing.TB
	lab   *testnet.Lab
	netns *netfilter.NetNS
	id    record.NetNS
	rules trace.Rules
	made  netfilter.Applied
}

// newPod makes one without rules.
func newPod(t testing.TB, options testnet.Options) *pod {
	t.Helper()
	lab, err := testnet.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	p := &pod{TB: t, lab: lab}
	if p.netns, err = netfilter.Open(lab.Path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.netns.Close)
	err = p.netns.Within(func() (err error) {
		p.id, err = record.CurrentNetNS()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// apply gives it the rules of a profile, by nftables.
func (p *pod) apply(profile testnet.Profile) {
	p.Helper()
	spec, err := redirect.ParseSpec(profile.JSON())
	if err == nil {
		err = p.lab.Use(profile)
	}
	if err != nil {
		p.Fatal(err)
	}
	spec = spec.ForAddresses(redirect.Families)
	p.rules = trace.Rules{RuleSet: spec.RuleSet(), Spec: spec}
	if p.made, err = p.netns.Apply(netfilter.Nftables, p.rules.RuleSet); err != nil {
		p.Fatal(err)
	}
	if err := p.lab.Reset(); err != nil {
		p.Fatal(err)
	}
}

// args are those of the program.
func (p *pod) args(from, proto, to string) []string {
	return []string{"trace", "--netns=" + p.lab.Path, "--netns-id=" + string(p.id), "--from=" + from, "--proto=" + proto,
		"--to=" + to}
}

// look runs the program: from the peer's network namespace, which stands for the node's. What a busy machine has told
// too late is asked for again.
func (p *pod) look(args ...string) (told report.Trace, status int, stderr string) {
	p.Helper()
	for range 20 {
		if told, status, stderr = p.lookOnce(args...); !tooSlow(told) {
			break
		}
	}
	return told, status, stderr
}

// tooSlow reports whether the kernel of a busy machine has not told in time.
func tooSlow(told report.Trace) bool {
	return strings.Contains(told.Why, "has no end after") || strings.Contains(told.Why, "has not come to the pod's rules")
}

func (p *pod) lookOnce(args ...string) (told report.Trace, status int, stderr string) {
	p.Helper()
	cmd := exec.Command("nsenter", append([]string{"--net=" + p.lab.PeerPath, built}, args...)...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &told)
	}
	if err != nil && cmd.ProcessState.Success() {
		p.Fatalf("%v: %s", err, out.String())
	}
	return told, cmd.ProcessState.ExitCode(), problems.String()
}

// listing is what nft lists in the pod.
func (p *pod) listing() string {
	p.Helper()
	out, err := p.lab.PodCommand("nft", "-s", "list", "ruleset").Output()
	if err != nil {
		p.Fatal(err)
	}
	return string(out)
}

// packets are what is sent: from whom, by which protocol, to which place and port.
var packets = []struct {
	from, proto string
	to          testnet.Place
	port        uint16
}{
	{"uid:1000:1000", "tcp", testnet.Outside, 80},
	{"uid:1000:1000", "tcp", testnet.Service, 80},
	{"uid:1000:1000", "tcp", testnet.Pod, 8080},
	{"uid:1000:1000", "tcp", testnet.Loopback, 8080},
	{"uid:1000:1000", "tcp", testnet.Loopback, 15006},
	{"uid:0:0", "tcp", testnet.VM, 80},
	{"uid:1000:1337", "tcp", testnet.Outside, 80},
	{"uid:1337:1337", "tcp", testnet.Outside, 443},
	{"uid:1337:1337", "tcp", testnet.Pod, 8080},
	{"uid:0:1337", "tcp", testnet.Pod, 8080},
	{"uid:1000:1000", "udp", testnet.Outside, 53},
	{"uid:1337:1337", "udp", testnet.Outside, 53},
	{"uid:1000:1000", "udp", testnet.Peer, 4000},
	{"outside", "tcp", testnet.Pod, 8080},
	{"outside", "tcp", testnet.Pod, 15021},
	{"outside", "tcp", testnet.Pod, 15006},
	{"outside", "udp", testnet.Pod, 53},
}

// packetOf is one as package trace takes it.
func packetOf(t testing.TB, from, proto string, to netip.AddrPort, told report.Trace) trace.Packet {
	p := trace.Packet{Proto: redirect.TCP, Dest: to}
	if proto == "udp" {
		p.Proto = redirect.UDP
	}
	if from == "outside" {
		source, err := netip.ParseAddrPort(told.From)
		if err != nil {
			t.Fatal(err)
		}
		p.In, p.Source = told.In, source
		return p
	}
	var uid, gid uint32
	if _, err := fmt.Sscanf(from, "uid:%d:%d", &uid, &gid); err != nil {
		t.Fatal(err)
	}
	p.Owner = &trace.Owner{UID: redirect.ID(uid), GID: redirect.ID(gid)}
	return p
}
