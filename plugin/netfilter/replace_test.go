package netfilter

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// older returns a lab whose pod has the old rules without the guard, and the profile that they were written for.
func older(t *testing.T, backend Backend, name string) (*testnet.Lab, *NetNS, testnet.Profile) {
	t.Helper()
	lab, n := newLab(t, testnet.Options{})
	profile, _ := testnet.ProfileNamed(name)
	await.Must(t, lab.Use(profile))
	apply(t, n, backend, ruleSet(t, profile)) // for addresses and routes
	applyBefore(t, lab, backend, name)
	return lab, n, profile
}

// eachOlder runs a test in such a pod for every backend, and for every profile with old rules.
func eachOlder(t *testing.T, test func(*testing.T, Backend, *testnet.Lab, *NetNS, testnet.Profile)) {
	for name := range guarded {
		for _, backend := range backends {
			t.Run(name+"/"+string(backend), func(t *testing.T) {
				t.Parallel()
				lab, n, profile := older(t, backend, name)
				test(t, backend, lab, n, profile)
			})
		}
	}
}

// TestReplace renews the rules of running pods, and checks what happens to their connections. Those that have been
// answered continue unchanged, TCP and UDP, through the sidecar and past it, with DNS. So does TCP that had bypassed
// the sidecar, because the guard judges SYNs only. DNS that had bypassed it does not.
func TestReplace(t *testing.T) {
	eachOlder(t, func(t *testing.T, backend Backend, lab *testnet.Lab, n *NetNS, profile testnet.Profile) {
		flows := testnet.Flows(profile)
		open := lab.Open(flows)
		defer open.Close()
		rules := ruleSet(t, profile)
		applied, err := n.Replace(backend, rules)
		if err != nil || applied.Backend != backend {
			t.Fatalf("%+v, %v", applied, err)
		}
		landed := map[testnet.Landing]int{}
		for _, r := range open.Ask() {
			if r.Flow.Escapes() && r.Flow.Proto == testnet.UDP {
				r.Want = r.Got
				if r.Got.Landed == testnet.AtPeer {
					t.Errorf("goes on: %s", r)
				}
			}
			if landed[r.Want.Landed]++; !r.OK() {
				t.Errorf("%s", r)
			}
		}
		for _, where := range []testnet.Landing{testnet.AtOutbound, testnet.AtInbound, testnet.AtPeer, testnet.AtApp} {
			if landed[where] == 0 {
				t.Errorf("no connection was open at %s", where)
			}
		}
		if profile.Settings["dnsCapture"] == true && landed[testnet.AtDNS] == 0 {
			t.Error("no DNS was captured")
		}
		await.Must(t, n.Check(applied, rules))
		open.Close() // the attempts use the same ports
		for _, r := range lab.CheckFlows(flows) {
			t.Errorf("new: %s", r)
		}
	})
}

// TestReplaceBetween renews the rules after attempts to get around the sidecar have created their conntrack entries,
// and before they use them. None succeeds, because the guard judges every SYN.
func TestReplaceBetween(t *testing.T) {
	eachOlder(t, func(t *testing.T, backend Backend, lab *testnet.Lab, n *NetNS, profile testnet.Profile) {
		flows := testnet.Flows(profile)
		through := 0
		for _, r := range lab.Split(flows, func() {}) {
			if r.Got.Landed == testnet.AtPeer {
				through++
			}
		}
		if through == 0 {
			t.Error("no attempt gets through before")
		}
		await.Must(t, lab.Reset())
		for _, r := range lab.Split(flows, func() {
			_, err := n.Replace(backend, ruleSet(t, profile))
			await.Must(t, err)
		}) {
			if !r.OK() && r.Got.Landed != testnet.Kept {
				t.Errorf("%s", r)
			}
		}
	})
}

// TestReplaceFails has the kernel refuse the new rules: the old ones stay unchanged, and so does everything else.
func TestReplaceFails(t *testing.T) {
	t.Run("nftables", func(t *testing.T) {
		lab, n := newLab(t, testnet.Options{})
		apply(t, n, Nftables, named(t, "default"))
		before := everything(t, lab)
		rules := named(t, "tproxy-dns")
		rules.Tables = slices.Clone(rules.Tables)
		last := &rules.Tables[len(rules.Tables)-1]
		last.Chains = append(slices.Clone(last.Chains), redirect.Chain{Name: "ISTIO_X", Rules: []redirect.Rule{
			{Target: redirect.Jump("ISTIO_NOWHERE")},
		}})
		if applied, err := n.Replace(Nftables, rules); err == nil {
			t.Errorf("%+v", applied)
		}
		compareText(t, everything(t, lab), before)
		for _, backend := range []Backend{Iptables, IptablesNFT, IptablesLegacy} {
			onHostWith(t, func(string) bool { return false })
			if applied, err := n.Replace(backend, rules); !IsUnusable(err) {
				t.Errorf("%+v, %v", applied, err)
			}
			onThisHost(t)
			compareText(t, everything(t, lab), before)
		}
	})
	// The answer is lost: the new rules are in force.
	t.Run("lost", func(t *testing.T) {
		lab, n := newLab(t, testnet.Options{})
		apply(t, n, Nftables, named(t, "default"))
		lose(t, func(int) bool { return true })
		if applied, err := n.Replace(Nftables, named(t, "tproxy-dns")); !netlink.IsLost(err) {
			t.Errorf("%+v, %v", applied, err)
		}
		fresh, m := newLab(t, testnet.Options{})
		batch = (*netlink.Conn).Batch
		apply(t, m, Nftables, named(t, "tproxy-dns"))
		compareText(t, used(packetRules(t, lab)), used(packetRules(t, fresh)))
	})
}

// TestReplaceHalfWay has one run of iptables-restore fail, before its first table or before the last. In one family,
// all rules or those of the last table are then the old ones. No traffic is uncaptured that was captured, and another
// Replace completes the rules.
func TestReplaceHalfWay(t *testing.T) {
	for name := range guarded {
		for _, backend := range []Backend{IptablesNFT, IptablesLegacy} {
			for _, fails := range redirect.Families {
				for _, at := range []string{"raw", "nat"} {
					t.Run(fmt.Sprintf("%s/%s/%s/%s", name, backend, fails, at), func(t *testing.T) {
						halfWay(t, name, backend, fails, at)
					})
				}
			}
		}
	}
}

func halfWay(t *testing.T, name string, backend Backend, fails redirect.Family, at string) {
	lab, n, profile := older(t, backend, name)
	// The guard's cases have the old outcome where the old rules are. With the old rules, what a TPROXY sidecar with a
	// user of its own sends to its app returns to it.
	rest := slices.DeleteFunc(testnet.Flows(profile), func(f testnet.Flow) bool {
		return f.Escapes() || f.Kind == testnet.OriginalSrc && f.From != testnet.FromProxyGID
	})
	open := lab.Open(rest)
	defer open.Close()
	rules := ruleSet(t, profile)
	withBroken(t, broken{backend, fails, at})
	if applied, err := n.Replace(backend, rules); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Fatalf("%+v, %v", applied, err)
	}
	onThisHost(t)
	for _, family := range redirect.Families {
		listing := shell(t, lab, program(backend, family, "save"))
		isNew := family != fails || at != "raw"
		if strings.Contains(listing, "GUARD") != isNew || !strings.Contains(listing, "ISTIO_OUTPUT") {
			t.Errorf("%s should have new rules: %t\n%s", family, isNew, listing)
		}
	}
	for _, r := range slices.Concat(open.Ask(), lab.CheckFlows(rest)) {
		switch r.Got.Landed {
		case testnet.Refused, testnet.Timeout, testnet.Unreachable: // not open
		default:
			if r.Got.Landed != r.Want.Landed {
				t.Errorf("%s", r)
			}
		}
	}
	applied, err := n.Replace(backend, rules)
	await.Must(t, err)
	await.Must(t, n.Check(applied, rules))
}

// program returns the program that writes or lists the rules of a family.
func program(backend Backend, family redirect.Family, verb string) string {
	return iptablesName(family) + strings.TrimPrefix(string(backend), "iptables") + "-" + verb
}

// broken is a program that fails after it has written the family's tables before the given one, raw or nat.
type broken struct {
	backend Backend
	family  redirect.Family
	table   string
}

// withBroken makes programs fail. Not for parallel tests.
func withBroken(t *testing.T, programs ...broken) {
	t.Helper()
	onHostWith(t, func(string) bool { return true })
	slices.SortFunc(programs, func(a, b broken) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	same := func(a, b broken) bool { return a.backend == b.backend && a.family == b.family }
	for _, b := range slices.CompactFunc(programs, same) {
		name := program(b.backend, b.family, "restore")
		path := filepath.Join(os.Getenv("PATH"), name)
		target, err := os.Readlink(path)
		await.Must(t, err)
		await.Must(t, os.Remove(path))
		link := filepath.Join(t.TempDir(), name)
		await.Must(t, os.Symlink(target, link))
		until := map[string]string{"raw": ".", "nat": `\*nat`}[b.table]
		script := `#!/bin/sh
			PATH=/usr/bin:/bin
			input=$(cat)
			echo "$input" | sed '/^` + until + `/,$d' | ` + link + ` "$@"
			echo "$input" | grep -q '^` + until + `' || exit 0
			echo ` + name + ` is broken >&2
			exit 1
`
		await.Must(t, os.WriteFile(path, []byte(script), 0o755))
	}
}
