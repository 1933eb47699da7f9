package netfilter

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// shell runs a script in the lab's pod and returns its output.
func shell(t *testing.T, lab *testnet.Lab, script string) string {
	t.Helper()
	out, err := lab.PodCommand("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// packetRules lists all packet rules: nf_tables as nft prints it, with iptables-nft, and iptables-legacy in the same
// form. The kernel keeps a table of iptables-nft that was used once, so an empty one is not listed.
func packetRules(t *testing.T, lab *testnet.Lab) string {
	t.Helper()
	out := shell(t, lab, "nft -s list ruleset 2>/dev/null")
	for _, family := range redirect.Families {
		table, chains := "", map[string]string{}
		for line := range strings.Lines(shell(t, lab, iptablesName(family)+"-legacy-save")) {
			name, rest, _ := strings.Cut(line[1:], " ")
			switch line[0] {
			case '*':
				table = strings.TrimSpace(name)
			case ':':
				if !strings.HasPrefix(rest, "ACCEPT ") {
					chains[table+" chain "+name] += ""
				}
			case '-':
				name, _, _ = strings.Cut(rest, " ")
				chains[table+" chain "+name] += line
			}
		}
		for _, chain := range slices.Sorted(maps.Keys(chains)) {
			out += fmt.Sprintf("table %s legacy %s {\n%s}\n", family, chain, chains[chain])
		}
	}
	return out
}

// everything lists the packet rules and all else that Apply may touch: addresses, routes, policy rules, and the state
// of lo. The kernel adds the routes of an IPv6 address asynchronously, on a busy machine a second later, and a change
// during a dump may truncate it. So the lab settles first, and two listings must agree.
func everything(t *testing.T, lab *testnet.Lab) (all string) {
	t.Helper()
	await.Must(t, lab.Settle())
	await.Eventually(t, time.Minute, "two listings of the pod agree", func() bool {
		before := all
		all = packetRules(t, lab) + shell(t, lab, "ip -o address; ip rule; ip -6 rule; ip route show table all; "+
			"ip -6 route show table all; ip -o link show lo")
		return all == before
	})
	return all
}

// compareText fails and prints the lines that differ.
func compareText(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, line := range w {
		if !slices.Contains(g, line) {
			t.Errorf("missing   %s", line)
		}
	}
	for _, line := range g {
		if !slices.Contains(w, line) {
			t.Errorf("surplus   %s", line)
		}
	}
	t.Errorf("the listings differ")
}

func apply(t *testing.T, n *NetNS, backend Backend, rules redirect.RuleSet) Applied {
	t.Helper()
	applied, err := n.Apply(backend, rules)
	if err != nil {
		t.Fatal(err)
	}
	if applied.Backend != backend {
		t.Fatalf("written by %s instead of %s", applied.Backend, backend)
	}
	return applied
}

// mustApply applies and also checks, which with iptables takes about ten times as long.
func mustApply(t *testing.T, n *NetNS, backend Backend, rules redirect.RuleSet) Applied {
	t.Helper()
	applied := apply(t, n, backend, rules)
	if err := n.Check(applied, rules); err != nil {
		t.Fatal(err)
	}
	return applied
}

func named(t *testing.T, name string) redirect.RuleSet {
	t.Helper()
	profile, found := testnet.ProfileNamed(name)
	if !found {
		t.Fatalf("no profile %q", name)
	}
	return ruleSet(t, profile)
}

// some are profiles that differ in tables, chains, sets and routes.
var some = []string{"default", "tproxy-dns", "tproxy-exclude-interfaces", "include-exclude-ranges", "no-outbound",
	"tproxy-drop-invalid", "include-ports"}

func eachBackend(t *testing.T, test func(*testing.T, Backend)) {
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			test(t, backend)
		})
	}
}

func TestApplyTwice(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		for _, name := range some {
			lab, n := newLab(t, testnet.Options{})
			rules := named(t, name)
			mustApply(t, n, backend, rules)
			once := everything(t, lab)
			if again := mustApply(t, n, backend, rules); len(again.Created) > 0 {
				t.Errorf("%s: created again: %q", name, again.Created)
			}
			compareText(t, everything(t, lab), once)
		}
	})
}

// TestApplyReplaces changes from settings to settings. Empty tables that iptables-nft keeps do not count.
func TestApplyReplaces(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		lab, n := newLab(t, testnet.Options{})
		for _, name := range append(some, some[0]) {
			mustApply(t, n, backend, named(t, name))
			fresh, m := newLab(t, testnet.Options{})
			apply(t, m, backend, named(t, name))
			compareText(t, used(packetRules(t, lab)), used(packetRules(t, fresh)))
		}
	})
}

// What iptables-nft creates in a table and never deletes: built-in chains, which are empty, and the table.
var (
	emptyChain = regexp.MustCompile(`\tchain [A-Z]+ \{\n\t\ttype .* policy accept;\n\t\}\n\n?`)
	emptyTable = regexp.MustCompile(`table ip6? (raw|mangle|filter|nat) \{\n\}\n`)
	block      = regexp.MustCompile(`(?m)^\t(chain|set) (.*\n)*?\t\}\n`)
)

// used returns a listing without those, with its chains in a fixed order.
func used(listing string) string {
	listing = emptyTable.ReplaceAllString(emptyChain.ReplaceAllString(listing, ""), "")
	var out []string
	for table := range strings.SplitSeq(listing, "\n}\n") {
		head, _, _ := strings.Cut(table, "\n")
		blocks := block.FindAllString(table+"\n", -1)
		slices.Sort(blocks)
		out = append(out, head+"\n"+strings.Join(blocks, "")+block.ReplaceAllString(table+"\n", ""))
	}
	slices.Sort(out)
	return strings.ReplaceAll(strings.Join(out, ""), "\n\n", "\n")
}

// TestRemove checks that all listings are the same as before, except for what used ignores if somebody else already had
// an iptables-nft table.
func TestRemove(t *testing.T) {
	for _, prepare := range []string{"true", "ip link set lo down",
		"iptables-nft -t nat -N OTHER; ip6tables-legacy -t mangle -N OTHER"} {
		eachBackend(t, func(t *testing.T, backend Backend) {
			for _, name := range some[:3] {
				lab, n := newLab(t, testnet.Options{})
				shell(t, lab, prepare)
				before := everything(t, lab)
				rules := named(t, name)
				applied := mustApply(t, n, backend, rules)
				for range 2 {
					if err := n.Remove(applied); err != nil {
						t.Error(err)
					}
					if strings.Contains(before, "OTHER") {
						compareText(t, used(everything(t, lab)), used(before))
						continue
					}
					compareText(t, everything(t, lab), before)
				}
				if err := n.Check(applied, rules); !IsDrift(err) {
					t.Errorf("Check after Remove: %v", err)
				}
			}
		})
	}
}

// TestRemoveUnknown removes without the rules, as DEL does if it cannot read the record's settings.
func TestRemoveUnknown(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		lab, n := newLab(t, testnet.Options{})
		before := everything(t, lab)
		applied := mustApply(t, n, backend, named(t, "tproxy-dns"))
		if err := n.Remove(Applied{Created: applied.Created}); err != nil {
			t.Error(err)
		}
		compareText(t, used(everything(t, lab)), used(before))
	})
}

// TestOtherBackend writes over the rules of our other backends.
func TestOtherBackend(t *testing.T) {
	for _, first := range backends {
		for _, second := range backends {
			t.Run(fmt.Sprintf("%s/%s", first, second), func(t *testing.T) {
				t.Parallel()
				lab, n := newLab(t, testnet.Options{})
				before := everything(t, lab)
				rules := named(t, "tproxy-dns")
				created := apply(t, n, first, named(t, "tproxy-exclude-interfaces")).Created
				applied := mustApply(t, n, second, rules)
				fresh, m := newLab(t, testnet.Options{})
				apply(t, m, second, rules)
				compareText(t, used(packetRules(t, lab)), used(packetRules(t, fresh)))
				applied.Created = append(applied.Created, created...)
				if err := n.Remove(applied); err != nil {
					t.Error(err)
				}
				compareText(t, used(everything(t, lab)), used(before))
			})
		}
	}
}
