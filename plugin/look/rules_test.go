package look

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// read runs the program for the rules.
func (p *pod) read() (told report.Rules) {
	p.Helper()
	out, err := exec.Command(built, "rules", "--netns="+p.lab.Path, "--netns-id="+string(p.id)).CombinedOutput()
	if err == nil {
		err = json.Unmarshal(out, &told)
	}
	if err != nil {
		p.Fatalf("%v: %s", err, out)
	}
	for _, address := range []string{"127.0.0.1", "7f000001", "10.96"} {
		if strings.Contains(string(out), address) {
			p.Errorf("an address is told: %s", out)
		}
	}
	return told
}

// All rules of the plugin are told, each with what it is for, and those of others, of nftables and of iptables.
func TestRules(t *testing.T) {
	p := newPod(t, testnet.Options{})
	if told := p.read(); told.Why != "" || len(told.Tables) != 0 {
		t.Errorf("without rules: %+v", told)
	}
	p.apply(testnet.BaseProfiles[0])
	p.nft("add table inet theirs { flags dormant; }; " +
		"add chain inet theirs c { type nat hook output priority -150; policy accept; }; " +
		"add rule inet theirs c ip daddr 10.96.0.1 tcp dport 80 redirect to :9 comment \"a\tb\"")
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		out, err := p.lab.PodCommand(program, "-A", "INPUT", "-s", "10.96.0.1", "-j", "DROP").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	told := p.read()
	tables := map[string]report.Table{}
	for _, table := range told.Tables {
		tables[table.Family+" "+table.Name] = table
	}
	for _, its := range p.rules.Tables {
		for _, c := range its.Chains {
			var lines []string
			for _, r := range c.Rules {
				for _, line := range r.Lines(its) {
					lines = append(lines, line.Why)
				}
			}
			chain := chainNamed(t, tables[its.Family.String()+" "+redirect.TableName], redirect.NFTName(its.Kind, c.Name))
			var comments []string
			for _, r := range chain.Rules {
				comments = append(comments, r.Comment)
			}
			if strings.Join(comments, "\n") != strings.Join(lines, "\n") {
				t.Errorf("%s: %q, want %q", chain.Name, comments, lines)
			}
			if chain.Hook != string(c.Hook) || chain.Hook != "" && chain.Priority != its.Kind.Priority() {
				t.Errorf("%+v", chain)
			}
		}
	}
	redirects := chainNamed(t, tables["ip istio-pod-network"], "nat-istio-redirect")
	if len(redirects.Rules) != 1 || redirects.Rules[0].Does != "meta l4proto, cmp, immediate, redir" {
		t.Errorf("%+v", redirects)
	}
	theirs := tables["inet theirs"]
	c := chainNamed(t, theirs, "c")
	if !theirs.Dormant || c.Type != "nat" || c.Priority != -150 || c.Policy != "accept" || len(c.Rules) != 1 ||
		c.Rules[0].Comment != "a?b" || !strings.HasSuffix(c.Rules[0].Does, "redir") {
		t.Errorf("%+v", theirs)
	}
	if c := chainNamed(t, tables["ip filter"], "INPUT"); len(c.Rules) != 1 || !strings.HasSuffix(c.Rules[0].Does, "drop") {
		t.Errorf("%+v", c)
	}
	if len(told.Legacy) != 1 || told.Legacy[0] != "ip filter" {
		t.Errorf("%q", told.Legacy)
	}
}

func chainNamed(t *testing.T, table report.Table, name string) report.Chain {
	t.Helper()
	for _, c := range table.Chains {
		if c.Name == name {
			return c
		}
	}
	t.Errorf("no chain %s in %+v", name, table)
	return report.Chain{}
}

// What somebody in the pod has filled is not read: it is told that there is too much.
func TestTooManyRules(t *testing.T) {
	p := newPod(t, testnet.Options{Bare: true})
	var text strings.Builder
	text.WriteString("add table ip theirs; add chain ip theirs c\n")
	for range 20000 {
		text.WriteString("add rule ip theirs c ip daddr 192.0.2.1 tcp dport 80 accept\n")
	}
	cmd := p.lab.PodCommand("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if told := p.read(); !strings.Contains(told.Why, "come to the limit of") || len(told.Tables) != 0 {
		t.Errorf("%s, %d tables", told.Why, len(told.Tables))
	}
	if told, status, _ := p.look(p.args("uid:1:1", "tcp", "203.0.113.7:80")...); status != 0 || told.Why != "" {
		t.Errorf("a trace, which does not read these: %+v", told)
	}
}

// What would be escaped in HTML is not: it would be six times as long, and the agent reads no more than report.Most.
func TestRulesAsJSON(t *testing.T) {
	p := newPod(t, testnet.Options{Bare: true})
	const count, comment = 1500, 120
	var text strings.Builder
	text.WriteString("add table ip theirs; add chain ip theirs c\n")
	for range count {
		fmt.Fprintf(&text, "add rule ip theirs c accept comment %q\n", strings.Repeat("<", comment))
	}
	cmd := p.lab.PodCommand("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	told := p.read()
	if told.Why != "" || len(told.Tables) != 1 || len(told.Tables[0].Chains[0].Rules) != count {
		t.Fatalf("%s, %d tables", told.Why, len(told.Tables))
	}
	if got := told.Tables[0].Chains[0].Rules[0].Comment; got != strings.Repeat("<", comment) {
		t.Errorf("%q", got)
	}
	if limited := limited(told, count*comment); limited.Tables == nil || len(limited.Tables) != 0 ||
		!strings.Contains(limited.Why, "more than the limit of 180000") {
		t.Errorf("%s, %d tables", limited.Why, len(limited.Tables))
	}
}
