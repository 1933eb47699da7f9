package netfilter

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"golang.org/x/sys/unix"
)

// scripted replaces a program by a script, in which "$real" is the program. The host must come from withBroken.
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

// TestFailsOnce has a working backend fail in the pod alone. Apply then uses no other backend, and leaves nothing.
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
	if err := Usable(Auto, named(t, "default")); !IsUnusable(err) { // ADD says the same at that moment
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

// TestOldKernel writes to a pod with its own user namespace, on a kernel whose nf_tables does not recognise the
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
	created := mustApply(t, n, Nftables, rules).Created // as if created before the kernel changed
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

// TestOneTransaction counts the transactions of an ADD that succeeds: it tries nothing else.
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

// TestUsableUntold has no scratch network namespace. That says nothing about a backend.
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

// TestLegacyInUse writes with iptables to a pod with legacy tables: the legacy variant, so that all chains are in the
// same tables.
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
