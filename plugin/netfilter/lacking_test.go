package netfilter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// A module of the kernel that this one has, and what is refused where it is missing: by nf_tables, in every network
// namespace alike, and by the host's iptables. `make kernels` takes the modules themselves away.
var modules = map[string]struct {
	refused  func(netlink.Message) bool
	errno    unix.Errno
	programs []broken
}{
	"nf_tables": {func(netlink.Message) bool { return true }, unix.EINVAL, bothBroken(IptablesNFT, "raw")},
	"nft_chain_nat": {func(m netlink.Message) bool {
		return verbOf(m) == unix.NFT_MSG_NEWCHAIN && holds(m, unix.NFTA_CHAIN_TYPE, "nat\x00")
	}, unix.ENOENT, bothBroken(IptablesNFT, "nat")},
	"nft_tproxy": {func(m netlink.Message) bool {
		return verbOf(m) == unix.NFT_MSG_NEWRULE && holds(m, unix.NFTA_RULE_EXPRESSIONS, "tproxy\x00")
	}, unix.ENOENT, nil},
	"nft_compat":   {nil, 0, bothBroken(IptablesNFT, "raw")},
	"ip6table_nat": {nil, 0, []broken{{IptablesLegacy, redirect.IPv6, "nat"}}},
	"xt_owner":     {nil, 0, append(bothBroken(IptablesNFT, "nat"), bothBroken(IptablesLegacy, "nat")...)},
	"ip_tables":    {nil, 0, bothBroken(IptablesLegacy, "raw")},
}

func verbOf(m netlink.Message) uint16 { return m.Kind & 0xff }

func holds(m netlink.Message, attr uint16, text string) bool {
	for _, a := range m.Attributes {
		if a.Type&^unix.NLA_F_NESTED == attr && bytes.Contains(a.Data, []byte(text)) {
			return true
		}
	}
	return false
}

func bothBroken(backend Backend, at string) (both []broken) {
	for _, family := range redirect.Families {
		both = append(both, broken{backend, family, at})
	}
	return both
}

// lacking takes modules away, until the returned function gives them back. Not for parallel tests.
func lacking(t *testing.T, names ...string) (restore func()) {
	t.Helper()
	saved, savedDump := batch, dump
	restore = func() {
		batch, dump = saved, savedDump
		onThisHost(t)
	}
	t.Cleanup(restore)
	var programs []broken
	for _, name := range names {
		module := modules[name]
		programs = append(programs, module.programs...)
		if module.refused != nil {
			refuse(module.refused, module.errno)
		}
	}
	withBroken(t, programs...)
	return restore
}

func refuse(refused func(netlink.Message) bool, errno unix.Errno) {
	nextBatch, nextDump := batch, dump
	batch = func(conn *netlink.Conn, messages []netlink.Message, acked int) (int, error) {
		for i, m := range messages {
			if verbOf(m) != unix.NFNL_MSG_BATCH_BEGIN && refused(m) {
				return i, errno
			}
		}
		return nextBatch(conn, messages, acked)
	}
	dump = func(conn *netlink.Conn, m netlink.Message) ([][]byte, error) {
		if refused(m) {
			return nil, errno
		}
		return nextDump(conn, m)
	}
}

// lackings are kernels that lack something: what is written all the same, or the error of ADD and STATUS.
var lackings = []struct {
	lacks   string
	backend Backend
	profile string
	want    Backend
	err     []string
}{
	{"nf_tables", Auto, "default", IptablesLegacy, nil},
	{"nf_tables", Iptables, "tproxy-dns", IptablesLegacy, nil},
	{"nf_tables", IptablesLegacy, "default", IptablesLegacy, nil},
	{"nf_tables", Nftables, "default", "", []string{"backend nftables is not usable: the kernel has no nf_tables"}},
	{"nf_tables", IptablesNFT, "default", "", []string{"backend iptables-nft is not usable: the kernel has no nf_tables"}},
	{"nf_tables ip_tables", Auto, "default", "", []string{"backend auto is not usable: nftables: the kernel has no " +
		"nf_tables; iptables-nft: the kernel has no nf_tables; iptables-legacy: running ip6tables-legacy-restore: ",
		"ip6tables-legacy-restore is broken; running iptables-legacy-restore: "}},
	{"nft_chain_nat", Auto, "tproxy-dns", IptablesLegacy, nil},
	{"nft_chain_nat", Iptables, "default", IptablesLegacy, nil},
	{"nft_chain_nat", Nftables, "default", "", []string{"backend nftables is not usable: committing the nftables " +
		"transaction: adding chain ip6 nat-istio-inbound: no such file or directory"}},
	{"nft_chain_nat", IptablesNFT, "default", "", []string{"backend iptables-nft is not usable: running ",
		"iptables-nft-restore is broken"}},
	{"nft_chain_nat ip_tables", Auto, "default", "", []string{"backend auto is not usable: nftables: committing the ",
		"; iptables-nft: running ip6tables-nft-restore: ", "; iptables-legacy: running ip6tables-legacy-restore: "}},
	{"nft_tproxy", Auto, "default", Nftables, nil},
	{"nft_tproxy", Auto, "tproxy-dns", IptablesNFT, nil},
	{"nft_tproxy", Nftables, "tproxy-dns", "", []string{"backend nftables is not usable: committing the nftables " +
		"transaction: adding a rule to chain ip6 mangle-istio-tproxy: no such file or directory"}},
	{"nft_tproxy nft_compat", Auto, "tproxy-dns", IptablesLegacy, nil},
	{"nft_compat", Iptables, "default", IptablesLegacy, nil},
	{"ip6table_nat", Auto, "default", Nftables, nil},
	{"ip6table_nat", Iptables, "default", IptablesNFT, nil},
	{"ip6table_nat", IptablesLegacy, "default", "", []string{"backend iptables-legacy is not usable: running " +
		"ip6tables-legacy-restore: exit status 1: ip6tables-legacy-restore is broken; " + usesNFT}},
	{"xt_owner", Auto, "default", Nftables, nil},
	{"xt_owner", Iptables, "default", "", []string{"backend iptables is not usable: iptables-nft: running " +
		"ip6tables-nft-restore: ", "; iptables-legacy: running ip6tables-legacy-restore: ", "; " + usesNFT}},
	{"xt_owner nft_chain_nat", Auto, "default", "", []string{"nftables: ", "iptables-nft: ", "iptables-legacy: "}},
}

// TestLacking writes to a pod on kernels that lack something: by what works, and otherwise not at all. STATUS says what
// ADD says.
func TestLacking(t *testing.T) {
	for _, kernel := range lackings {
		t.Run(fmt.Sprintf("%s/%s/%s", kernel.lacks, kernel.backend, kernel.profile), func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			profile, _ := testnet.ProfileNamed(kernel.profile)
			before, rules := everything(t, lab), ruleSet(t, profile)
			restore := lacking(t, strings.Fields(kernel.lacks)...)
			lab.InPod(func() { // which has IPv6, as this machine need not have
				err := Usable(kernel.backend, rules)
				if (err == nil) != (kernel.err == nil) || err != nil && !IsUnusable(err) {
					t.Errorf("usable: %v", err)
				}
				reported(t, err, kernel.err)
			})
			applied, err := n.Apply(kernel.backend, rules)
			if kernel.err != nil {
				if !IsUnusable(err) {
					t.Errorf("%+v, %v", applied, err)
				}
				reported(t, err, kernel.err)
				restore()
				compareText(t, used(everything(t, lab)), used(before))
				return
			}
			if err != nil || applied.Backend != kernel.want || skippedText(applied) != "" {
				t.Fatalf("%+v, %v", applied, err)
			}
			await.Must(t, n.Check(applied, rules))
			again, err := n.Apply(kernel.backend, rules)
			if err != nil || again.Backend != kernel.want || len(again.Created) > 0 {
				t.Errorf("again: %+v, %v", again, err)
			}
			restore()
			await.Must(t, lab.Use(profile))
			for _, result := range lab.Check() {
				t.Error(result)
			}
			restore = lacking(t, strings.Fields(kernel.lacks)...)
			await.Must(t, n.Remove(applied))
			restore()
			compareText(t, used(everything(t, lab)), used(before))
		})
	}
}

// reported looks at an error: it holds these texts in their order, and names the nftables backend as a way out only
// where they do.
func reported(t *testing.T, err error, texts []string) {
	t.Helper()
	if err == nil {
		return
	}
	rest := err.Error()
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		if rest = after; !found {
			t.Errorf("%v\nlacks %q", err, text)
			return
		}
	}
	if strings.Contains(rest, usesNFT) {
		t.Errorf("%v", err)
	}
}

// TestReplaceLacking writes anew to a pod on kernels that have come to lack what its rules are written by: the new ones
// come by another way and the old ones go, or the old ones stay as they are.
func TestReplaceLacking(t *testing.T) {
	for _, c := range []struct {
		lacks string
		by    Backend
		want  Backend
	}{
		{"nft_tproxy", Nftables, IptablesNFT},
		{"nft_chain_nat", Nftables, IptablesLegacy},
		{"nft_chain_nat ip_tables", Nftables, ""},
		{"nft_compat nft_tproxy", IptablesNFT, IptablesLegacy},
	} {
		for name, put := range map[string]func(*NetNS, Backend, redirect.RuleSet) (Applied, error){
			"Replace": (*NetNS).Replace, "Apply": (*NetNS).Apply,
		} {
			t.Run(name+"/"+c.lacks, func(t *testing.T) {
				lab, n := newLab(t, testnet.Options{})
				earlier := apply(t, n, c.by, named(t, "default"))
				profile, _ := testnet.ProfileNamed("tproxy-dns")
				rules, before := ruleSet(t, profile), everything(t, lab)
				restore := lacking(t, strings.Fields(c.lacks)...)
				applied, err := put(n, Auto, rules)
				restore()
				if c.want == "" {
					if !IsUnusable(err) {
						t.Errorf("%+v, %v", applied, err)
					}
					compareText(t, used(everything(t, lab)), used(before))
					return
				}
				if err != nil || applied.Backend != c.want {
					t.Fatalf("%+v, %v", applied, err)
				}
				renewed(t, lab, n, profile, applied)
				applied.Created = append(applied.Created, earlier.Created...)
				await.Must(t, n.Remove(applied))
			})
		}
	}
}

// renewed finds no other rules than those in the pod, and every flow where it should land.
func renewed(t *testing.T, lab *testnet.Lab, n *NetNS, profile testnet.Profile, applied Applied) {
	t.Helper()
	rules := ruleSet(t, profile)
	fresh, m := newLab(t, testnet.Options{})
	apply(t, m, applied.Backend, rules)
	compareText(t, used(packetRules(t, lab)), used(packetRules(t, fresh)))
	await.Must(t, n.Check(applied, rules))
	await.Must(t, lab.Use(profile))
	for _, result := range lab.Check() {
		t.Error(result)
	}
}

// TestReplaceUnfinished has the way of the earlier rules give up between two tables. By then some are new. What is
// written is all by the other way, and of the first nothing is left; or where there is no other, all of it stays.
func TestReplaceUnfinished(t *testing.T) {
	for _, other := range []bool{true, false} {
		t.Run(fmt.Sprintf("another way: %t", other), func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			apply(t, n, IptablesLegacy, named(t, "default"))
			profile, _ := testnet.ProfileNamed("tproxy-dns")
			if other {
				withBroken(t)
			} else {
				withBroken(t, bothBroken(IptablesNFT, "raw")...)
			}
			scripted(t, "ip6tables-legacy-restore", `input=$(cat)
				case $input in
				*'-A ISTIO'*) echo "$input" | sed '/^\*nat/,$d' | "$real" "$@"; echo broken >&2; exit 1 ;;
				esac
				echo "$input" | "$real" "$@"`)
			applied, err := n.Replace(Iptables, ruleSet(t, profile))
			onThisHost(t)
			if other {
				if err != nil || applied.Backend != IptablesNFT {
					t.Fatalf("%+v, %v", applied, err)
				}
				renewed(t, lab, n, profile, applied)
				return
			}
			if !IsUnusable(err) {
				t.Fatalf("%+v, %v", applied, err)
			}
			for _, family := range redirect.Families {
				saved := shell(t, lab, iptablesName(family)+"-legacy-save")
				for _, rule := range []string{"-A OUTPUT -j ISTIO_OUTPUT", "-j REDIRECT --to-ports 15001"} {
					if !strings.Contains(saved, rule) {
						t.Errorf("%s has lost %s:\n%s", family, rule, saved)
					}
				}
				if rules := shell(t, lab, iptablesName(family)+"-nft-save"); strings.Contains(rules, istioPrefix) {
					t.Errorf("left of %s:\n%s", family, rules)
				}
			}
		})
	}
}

// scripted puts a script in the place of a program, which is "$real" in it. For a host that withBroken has made.
func scripted(t *testing.T, name, script string) {
	t.Helper()
	path := filepath.Join(os.Getenv("PATH"), name)
	target, err := os.Readlink(path)
	await.Must(t, err)
	await.Must(t, os.Remove(path))
	real := filepath.Join(t.TempDir(), name)
	await.Must(t, os.Symlink(target, real))
	await.Must(t, os.WriteFile(path, []byte("#!/bin/sh\nPATH=/usr/bin:/bin\nreal="+real+"\n"+script+"\n"), 0o755))
}

// TestFailsOnce has what works fail in the pod alone: that is no reason to take another way, and nothing is left.
func TestFailsOnce(t *testing.T) {
	lab, n := newLab(t, testnet.Options{})
	before := everything(t, lab)
	failed := func(backend Backend, keep bool) {
		t.Helper()
		applied, err := n.put(backend, named(t, "default"), keep)
		if err == nil || IsUnusable(err) || applied.Backend != "" {
			t.Errorf("%s: %+v, %v", backend, applied, err)
		}
	}
	saved, calls := batch, 0
	batch = func(conn *netlink.Conn, messages []netlink.Message, acked int) (int, error) {
		if calls++; calls%2 == 1 {
			return len(messages) / 2, unix.ENOENT
		}
		return saved(conn, messages, acked)
	}
	t.Cleanup(func() { batch = saved })
	failed(Auto, false)
	failed(Auto, true)
	if err := Usable(Auto, named(t, "default")); !IsUnusable(err) { // as ADD says at that moment
		t.Error(err)
	}
	batch = saved
	withBroken(t)
	flag := filepath.Join(t.TempDir(), "flag")
	scripted(t, "ip6tables-nft-restore", `if [ -e `+flag+` ]; then rm `+flag+`; exec "$real" "$@"; fi
		: >`+flag+`; echo "no memory" >&2; exit 4`)
	failed(Iptables, false)
	onThisHost(t)
	compareText(t, used(everything(t, lab)), used(before))
}

// TestOldKernel writes to a pod with a user namespace of its own on a kernel whose nf_tables does not know the
// sidecar's user there.
func TestOldKernel(t *testing.T) {
	saved := release
	t.Cleanup(func() { release = saved })
	release = func() string { return "5.4.0-100-generic" }
	lab, n := newLab(t, testnet.Options{UserNamespace: true})
	before := everything(t, lab)
	profile, _ := testnet.ProfileNamed("default")
	rules := ruleSet(t, profile)
	const reason = "before Linux 5.10, and this is 5.4.0-100-generic, it does not know the sidecar's user in a pod with " +
		"a user namespace of its own (hostUsers: false)"
	if applied, err := n.Apply(Nftables, rules); !IsUnusable(err) ||
		err.Error() != "backend nftables is not usable: "+reason {
		t.Errorf("%+v, %v", applied, err)
	}
	onHostWith(t, func(name string) bool { return name != "nsenter" })
	_, err := n.Apply(Auto, rules)
	reported(t, err, []string{"backend auto is not usable: nftables: " + reason + "; iptables-nft: no nsenter",
		"; iptables-legacy: no nsenter"})
	if _, err = n.Apply(Iptables, rules); !IsUnusable(err) {
		t.Error(err)
	}
	reported(t, err, []string{"backend iptables is not usable: iptables-nft: no nsenter"})
	onThisHost(t)
	compareText(t, everything(t, lab), before)

	release = func() string { return "6.1.0-18-amd64" }
	created := mustApply(t, n, Nftables, rules).Created // of before the kernel was exchanged
	release = func() string { return "4.18.0-553.el8_10.x86_64" }
	for _, backend := range []Backend{Auto, Iptables} {
		applied, err := n.Apply(backend, rules)
		if err != nil || applied.Backend != IptablesNFT {
			t.Fatalf("%+v, %v", applied, err)
		}
		await.Must(t, n.Check(applied, rules))
		created = append(created, applied.Created...)
	}
	await.Must(t, lab.Use(profile))
	for _, result := range lab.Check() {
		t.Error(result)
	}
	await.Must(t, n.Remove(Applied{Backend: IptablesNFT, Created: created}))
	compareText(t, used(everything(t, lab)), used(before))

	_, other := newLab(t, testnet.Options{})
	if applied, err := other.Apply(Auto, rules); err != nil || applied.Backend != Nftables {
		t.Errorf("without a user namespace: %+v, %v", applied, err)
	}
}

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"": false, "x": false, "4.18.0-553.el8_10.x86_64": false, "5.4.0-100-generic": false, "5.9.16": false,
		"5.9-rc1": false, "5.10": true, "5.10.0-33-amd64": true, "5.10-rc1": true, "5.100.1": true, "6.1": true,
		"6.12.5+deb13-amd64": true, "10.0": true,
	} {
		if atLeast(release, 5, 10) != want {
			t.Error(release)
		}
	}
}

// TestOneTransaction counts the transactions of an ADD that succeeds: nothing is tried beside it.
func TestOneTransaction(t *testing.T) {
	_, n := newLab(t, testnet.Options{})
	saved, calls := batch, 0
	batch = func(conn *netlink.Conn, messages []netlink.Message, acked int) (int, error) {
		calls++
		return saved(conn, messages, acked)
	}
	t.Cleanup(func() { batch = saved })
	for _, backend := range []Backend{Auto, Nftables} {
		calls = 0
		if applied, err := n.Apply(backend, named(t, "default")); err != nil || applied.Backend != Nftables {
			t.Errorf("%+v, %v", applied, err)
		}
		if calls != 1 {
			t.Errorf("%s: %d transactions", backend, calls)
		}
	}
}

// TestUsableUntold cannot make a network namespace to try something in: that says nothing of a backend.
func TestUsableUntold(t *testing.T) {
	saved := newNamespace
	t.Cleanup(func() { newNamespace = saved })
	newNamespace = func() (ns.NetNS, error) { return nil, unix.ENOSPC }
	rules := named(t, "default")
	if err := Usable(Auto, rules); !errors.Is(err, unix.ENOSPC) || IsUnusable(err) {
		t.Error(err)
	}
	_, n := newLab(t, testnet.Options{})
	restore := lacking(t, "nft_tproxy")
	_, err := n.Apply(Auto, named(t, "tproxy-dns"))
	restore()
	if !errors.Is(err, unix.ENOSPC) || !errors.Is(err, unix.ENOENT) || IsUnusable(err) {
		t.Error(err)
	}
}

// TestLegacyInUse writes by iptables to a pod in which somebody uses its legacy way: beside those rules, not before or
// after them.
func TestLegacyInUse(t *testing.T) {
	for _, lacks := range []string{"", "nft_chain_nat"} {
		backend := Iptables
		if lacks != "" {
			backend = Auto
		}
		lab, n := newLab(t, testnet.Options{})
		shell(t, lab, "iptables-legacy -t nat -N DOCKER")
		restore := lacking(t, strings.Fields(lacks)...)
		applied, err := n.Apply(backend, named(t, "default"))
		restore()
		if err != nil || applied.Backend != IptablesLegacy {
			t.Errorf("%s: %+v, %v", backend, applied, err)
		}
	}
}
