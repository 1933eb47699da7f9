package netfilter

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// onHostWith hides all programs but those that match. Not for parallel tests.
func onHostWith(t *testing.T, match func(name string) bool) {
	t.Helper()
	dir := t.TempDir()
	programs, err := filepath.Glob("/usr/sbin/*tables*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(programs, "/usr/bin/nsenter") {
		if target, err := filepath.EvalSymlinks(path); err == nil && match(filepath.Base(path)) {
			if err := os.Symlink(target, filepath.Join(dir, filepath.Base(path))); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", dir)
	saved := toolDirs
	toolDirs = nil
	t.Cleanup(func() { toolDirs = saved })
}

// onThisHost makes the test's own tools see all programs again.
func onThisHost(t *testing.T) {
	t.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}

// no6 matches the programs of a host without ip6tables.
func no6(program string) bool { return !strings.HasPrefix(program, "ip6tables") }

// plain reports whether a program's name has no variant.
func plain(program string) bool {
	return !strings.Contains(program, "-nft") && !strings.Contains(program, "-legacy")
}

// The remedies if only programs are missing.
const (
	install  = "; install package iptables (on Alpine ip6tables as well), or "
	usesNFT  = "use the nftables backend, which works here and needs no program"
	lacks6   = ", and IPv6 would go around the sidecar"
	disables = ", or disable IPv6 (net.ipv6.conf.all.disable_ipv6 and .default.disable_ipv6)"
)

func TestHosts(t *testing.T) {
	for _, host := range []struct {
		name    string
		has     func(string) bool
		backend Backend
		want    Backend
		err     string
	}{
		{"no program", func(string) bool { return false }, Auto, Nftables, ""},
		{"no program", func(string) bool { return false }, Nftables, Nftables, ""},
		{"no program", func(string) bool { return false }, Iptables, "",
			"backend iptables is not usable: iptables-nft: no ip6tables-nft-restore on this host; iptables-legacy: " +
				"no ip6tables-legacy-restore on this host" + install + usesNFT},
		{"nft only", func(p string) bool { return strings.Contains(p, "-nft") }, Iptables, IptablesNFT, ""},
		{"nft only", func(p string) bool { return strings.Contains(p, "-nft") }, IptablesLegacy, "",
			"backend iptables-legacy is not usable: no ip6tables-legacy-restore on this host" + install + usesNFT},
		{"legacy only", func(p string) bool { return strings.Contains(p, "-legacy") }, Iptables, IptablesLegacy, ""},
		{"legacy only", func(p string) bool { return strings.Contains(p, "-legacy") }, IptablesNFT, "",
			"backend iptables-nft is not usable: no ip6tables-nft-restore on this host" + install + usesNFT},
		{"plain names only", func(p string) bool {
			return !strings.ContainsAny(p, "-") || strings.HasSuffix(p, "bles-restore") || strings.HasSuffix(p, "bles-save")
		}, Iptables, IptablesNFT, ""},
		{"no ip6tables", no6, Iptables, "", "backend iptables is not usable: iptables-nft: no ip6tables-nft-restore on " +
			"this host" + lacks6 + "; iptables-legacy: no ip6tables-legacy-restore on this host" + lacks6 + install + usesNFT +
			disables},
		{"no ip6tables", no6, IptablesNFT, "", "backend iptables-nft is not usable: no ip6tables-nft-restore on " +
			"this host" + lacks6 + install + usesNFT + disables},
		{"no ip6tables", no6, IptablesLegacy, "", "backend iptables-legacy is not usable: no ip6tables-legacy-restore on " +
			"this host" + lacks6 + install + usesNFT + disables},
		{"no ip6tables-nft", func(p string) bool { return !strings.HasPrefix(p, "ip6tables-nft") && !plain(p) }, Iptables,
			IptablesLegacy, ""},
		{"no ip6tables", no6, Auto, Nftables, ""},
		{"no ip6tables", no6, Nftables, Nftables, ""},
	} {
		t.Run(host.name+", "+string(host.backend), func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			before := everything(t, lab)
			onHostWith(t, host.has)
			rules := named(t, "tproxy-dns")
			lab.InPod(func() { // the lab's pod has IPv6, even if this machine has none
				err := Usable(host.backend, rules)
				if (err == nil) != (host.err == "") || err != nil && err.Error() != host.err {
					t.Errorf("usable: %v", err)
				}
			})
			applied, err := n.Apply(host.backend, rules)
			if host.err != "" {
				if !IsUnusable(err) || err.Error() != host.err {
					t.Errorf("error %v", err)
				}
				onThisHost(t)
				compareText(t, everything(t, lab), before)
				return
			}
			if err != nil || applied.Backend != host.want || skippedText(applied) != "" {
				t.Fatalf("%+v, %v", applied, err)
			}
			if err := n.Check(applied, rules); err != nil {
				t.Error(err)
			}
			if err := n.Remove(applied); err != nil {
				t.Error(err)
			}
			onThisHost(t)
			compareText(t, everything(t, lab), before)
		})
	}
}

// skippedText joins what was skipped, in the record's form.
func skippedText(applied Applied) string {
	var texts []string
	for _, s := range applied.Skipped {
		if again := ParseSkipped(s.String()); again != s {
			texts = append(texts, fmt.Sprintf("%+v is read as %+v", s, again))
		}
		texts = append(texts, s.String())
	}
	return strings.Join(texts, "; ")
}

// TestPassthroughAddress checks that ::6 is usable when Apply returns. Without IFA_F_NODAD, which remains visible, it
// is tentative until a worker of the kernel has run, and bind(2) fails until then.
func TestPassthroughAddress(t *testing.T) {
	lab, n := newLab(t, testnet.Options{})
	for range 20 {
		applied := apply(t, n, Nftables, named(t, "default"))
		lab.InPod(func() {
			socket, err := net.ListenPacket("udp", "[::6]:0")
			if err != nil {
				t.Error(err)
				return
			}
			_ = socket.Close()
		})
		if text := shell(t, lab, "ip -o address show dev lo to ::6"); !strings.Contains(text, " nodad") {
			t.Errorf("%s", text)
		}
		if err := n.Remove(applied); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoIPv6 writes to a pod with IPv6 disabled by sysctl: the rules are there in case it is enabled later.
func TestNoIPv6(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		lab, n := newLab(t, testnet.Options{NoIPv6: true, Families: []testnet.Family{testnet.IPv4}})
		before := everything(t, lab)
		profile, _ := testnet.ProfileNamed("tproxy-dns")
		rules := ruleSet(t, profile)
		applied := mustApply(t, n, backend, rules)
		if !strings.Contains(skippedText(applied), "address ::6/128 dev lo: IPv6 is disabled by sysctl") {
			t.Errorf("skipped: %s", skippedText(applied))
		}
		if written := packetRules(t, lab); !strings.Contains(written, "ip6 ") ||
			!strings.Contains(strings.ToUpper(written), "ISTIO") {
			t.Errorf("no IPv6 rules: %s", written)
		}
		if err := lab.Use(profile); err != nil {
			t.Fatal(err)
		}
		for _, result := range lab.Check() {
			t.Error(result)
		}
		if again := mustApply(t, n, backend, rules); !slices.Equal(again.Skipped, applied.Skipped) || len(again.Created) > 0 {
			t.Errorf("again: %+v", again)
		}
		if err := n.Remove(applied); err != nil {
			t.Error(err)
		}
		compareText(t, everything(t, lab), before)
	})
}

// TestNoIPv6Kernel writes several times to a kernel without IPv6 (ipv6.disable=1). This machine's kernel has IPv6: its
// IPv6 rules belong to somebody else and stay.
func TestNoIPv6Kernel(t *testing.T) {
	addresses, sysctls := ipv6Addresses, ipv6Sysctls
	t.Cleanup(func() { ipv6Addresses, ipv6Sysctls = addresses, sysctls })
	ipv6Addresses, ipv6Sysctls = filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "none")
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			shell(t, lab, `ip -6 rule add fwmark 1337 lookup 133 priority 32765
				ip -6 route add local ::/0 dev lo table 133
				ip -6 address add ::6/128 dev lo nodad`)
			before := everything(t, lab)
			var created []string
			for i, name := range []string{"tproxy-dns", "tproxy-dns", "default", "default"} {
				applied := mustApply(t, n, backend, named(t, name))
				if i%2 == 1 && len(applied.Created) > 0 {
					t.Errorf("%s again: created %q", name, applied.Created)
				}
				if skippedText(applied) != "ip6: the kernel has no IPv6" {
					t.Errorf("skipped: %s", skippedText(applied))
				}
				created = append(created, applied.Created...)
			}
			if rules := packetRules(t, lab); strings.Contains(rules, "table ip6 "+redirect.TableName) ||
				strings.Contains(rules, "table ip6 nat") {
				t.Errorf("has IPv6 rules: %s", rules)
			}
			if err := n.Remove(Applied{Backend: backend, Created: created}); err != nil {
				t.Error(err)
			}
			compareText(t, everything(t, lab), before)
		})
	}
}

// TestIPv6Unknown has a kernel that does not say whether it has IPv6. Its rules are not left out.
func TestIPv6Unknown(t *testing.T) {
	saved := ipv6Addresses
	t.Cleanup(func() { ipv6Addresses = saved })
	ipv6Addresses = "/dev/null/none"
	if rules, skipped := supported(named(t, "default")); !hasFamily(rules, redirect.IPv6) || len(skipped) > 0 {
		t.Errorf("skipped %v", skipped)
	}
}

// TestWithoutIP6Tables writes with iptables alone if IPv6 is disabled by sysctl, and fails otherwise.
func TestWithoutIP6Tables(t *testing.T) {
	profile, _ := testnet.ProfileNamed("default")
	for _, backend := range []Backend{IptablesNFT, IptablesLegacy} {
		for _, enable := range []string{"all", "default", "eth0"} {
			t.Run(fmt.Sprintf("%s/%s", backend, enable), func(t *testing.T) {
				lab, n := newLab(t, testnet.Options{NoIPv6: true, Families: []testnet.Family{testnet.IPv4}})
				before := everything(t, lab)
				onHostWith(t, no6)
				lab.InPod(func() {
					if err := Usable(backend, ruleSet(t, profile)); err != nil {
						t.Errorf("usable: %v", err)
					}
				})
				applied := mustApply(t, n, backend, ruleSet(t, profile))
				if want := "ip6: no ip6tables-restore on this host, and IPv6 is disabled by sysctl"; !strings.Contains(
					skippedText(applied), want) {
					t.Errorf("skipped: %s", skippedText(applied))
				}
				again := mustApply(t, n, backend, ruleSet(t, profile))
				onThisHost(t)
				if err := lab.Use(profile); err != nil {
					t.Fatal(err)
				}
				for _, result := range lab.Check() {
					t.Error(result)
				}
				sysctl := "echo %d >/proc/sys/net/ipv6/conf/" + enable + "/disable_ipv6"
				shell(t, lab, fmt.Sprintf(sysctl, 0))
				onHostWith(t, no6)
				err := n.Check(applied, ruleSet(t, profile))
				if !IsDrift(err) || !strings.Contains(err.Error(), "IPv6 is no longer disabled, and has no rules") {
					t.Errorf("Check says %v", err)
				}
				if _, err := n.Apply(backend, ruleSet(t, profile)); !IsUnusable(err) || !strings.Contains(err.Error(), lacks6) {
					t.Errorf("Apply says %v", err)
				}
				onThisHost(t)
				shell(t, lab, fmt.Sprintf(sysctl, 1))
				applied.Created = append(applied.Created, again.Created...)
				if err := n.Remove(applied); err != nil {
					t.Error(err)
				}
				compareText(t, used(everything(t, lab)), used(before))
			})
		}
	}
}

// TestUserNamespace writes to a pod with hostUsers: false and sends all flows.
func TestUserNamespace(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		lab, n := newLab(t, testnet.Options{UserNamespace: true})
		before := everything(t, lab)
		for _, name := range []string{"default", "tproxy-dns", "custom-ids"} {
			profile, _ := testnet.ProfileNamed(name)
			rules := ruleSet(t, profile)
			if err := lab.Use(profile); err != nil {
				t.Fatal(err)
			}
			applied := mustApply(t, n, backend, rules)
			applied.Created = append(applied.Created, mustApply(t, n, backend, rules).Created...)
			if err := lab.Reset(); err != nil {
				t.Fatal(err)
			}
			for _, result := range lab.Check() {
				t.Error(result)
			}
			if err := n.Remove(applied); err != nil {
				t.Error(err)
			}
			compareText(t, used(everything(t, lab)), used(before))
		}
	})
}

// TestUserNamespaceWithoutNsenter writes with nftables only, and the error of iptables says so.
func TestUserNamespaceWithoutNsenter(t *testing.T) {
	lab, n := newLab(t, testnet.Options{UserNamespace: true})
	before := everything(t, lab)
	for _, backend := range []Backend{Iptables, IptablesNFT, IptablesLegacy} {
		onHostWith(t, func(name string) bool { return name != "nsenter" })
		_, err := n.Apply(backend, named(t, "default"))
		if !IsUnusable(err) || !strings.Contains(err.Error(), "no nsenter (util-linux) on this host, and a user namespace "+
			"owns the network namespace; ") || !strings.HasSuffix(err.Error(), "; "+usesNFT) {
			t.Errorf("%s: %v", backend, err)
		}
		onThisHost(t)
		compareText(t, everything(t, lab), before)
	}
	onHostWith(t, func(string) bool { return false })
	if applied, err := n.Apply(Auto, named(t, "default")); err != nil || applied.Backend != Nftables {
		t.Errorf("%+v, %v", applied, err)
	}
}

// TestOtherBackendStays writes the new rules but cannot remove the old ones: it removes the new ones again.
func TestOtherBackendStays(t *testing.T) {
	lab, n := newLab(t, testnet.Options{})
	rules := named(t, "tproxy-dns")
	if _, err := n.Apply(IptablesLegacy, rules); err != nil {
		t.Fatal(err)
	}
	before := everything(t, lab)
	onHostWith(t, func(string) bool { return false })
	if applied, err := n.Apply(Nftables, rules); !IsUnusable(err) {
		t.Errorf("%+v, %v", applied, err)
	}
	onThisHost(t)
	compareText(t, everything(t, lab), before)
}
