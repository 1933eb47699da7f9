package look

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/trace"
	"github.com/istio-pod-network/controller/plugin/trace/tracetest"
)

// compared is what an app's call to the outside comes to, beside the prediction.
func (p *pod) compared() trace.Comparison {
	p.Helper()
	const from = "uid:1000:1000"
	to := netip.AddrPortFrom(testnet.Outside.Addr(testnet.IPv4), 80)
	told, status, stderr := p.look(p.args(from, "tcp", to.String())...)
	if status != 0 || told.Why != "" {
		p.Fatalf("%d, %s %s", status, told.Why, stderr)
	}
	return p.rules.Compare(p.rules.Trace(tracetest.Pod(), packetOf(p, from, "tcp", to, told)), told)
}

// nft changes what is in the pod.
func (p *pod) nft(text string) {
	p.Helper()
	if out, err := p.lab.PodCommand("nft", text).CombinedOutput(); err != nil {
		p.Fatalf("%v: %s", err, out)
	}
}

// A rule that is not there any more is found, and so is one of somebody else that changes the packet's way.
func TestDiffers(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.apply(testnet.BaseProfiles[0])
	if c := p.compared(); c.Differs != "" {
		t.Errorf("as they should be: %s", c.Differs)
	}
	p.nft("add table ip other; add chain ip other out { type filter hook output priority -160; }; " +
		"add rule ip other out tcp dport 80 counter")
	if c := p.compared(); c.Differs != "" || len(c.Heard) == 0 || c.Heard[0].Table != "other" || c.Heard[0].Ours {
		t.Errorf("beside a rule that does nothing: %+v", c)
	}
	p.nft("add rule ip other out tcp dport 80 drop")
	if c := p.compared(); c.Differs == "" {
		t.Errorf("somebody else drops it: %+v", c)
	}
	p.nft("delete table ip other; add table ip other; " +
		"add chain ip other out { type filter hook output priority -300; }; " +
		"add rule ip other out tcp dport 80 notrack")
	if c := p.compared(); c.Differs == "" {
		t.Errorf("somebody else keeps it from nat: %+v", c)
	}
	p.nft("delete table ip other; flush chain ip istio-pod-network nat-istio-redirect")
	if c := p.compared(); !strings.Contains(c.Differs, "nat-istio-redirect, rule 1") {
		t.Errorf("without the redirection: %+v", c)
	}
}

// While the program listens CHECK finds nothing, the table is nobody's rules, and an ADD goes through; a second one
// that wants to listen is told so.
func TestMeanwhile(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.apply(testnet.BaseProfiles[0])
	q := question{proto: 6, to: netip.MustParseAddrPort("203.0.113.7:80")}
	var its *listener
	err := p.netns.Within(func() (err error) {
		its, err = q.listen(40000)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(p.listing(), TableName) {
		t.Error("the table is not there")
	}
	if err := p.netns.Check(p.made, p.rules.RuleSet); err != nil {
		t.Error(err)
	}
	if _, err := p.netns.Replace(netfilter.Nftables, p.rules.RuleSet); err != nil {
		t.Error(err)
	}
	told, _, _ := p.look(p.args("uid:1000:1000", "tcp", "203.0.113.7:80")...)
	if !strings.Contains(told.Why, "another trace") {
		t.Errorf("a second one: %+v", told)
	}
	if out, err := p.lab.PodCommand("nft", "delete table inet "+TableName).CombinedOutput(); err == nil {
		t.Errorf("somebody else has deleted it: %s", out)
	}
	its.close()
	if left := p.listing(); strings.Contains(left, TableName) {
		t.Errorf("left:\n%s", left)
	}
	if err := p.netns.Check(p.made, p.rules.RuleSet); err != nil {
		t.Error(err)
	}
}
