package netfilter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"golang.org/x/sys/unix"
)

// foreigners write rules as Istio's own tools do.
var foreigners = []struct{ name, script, found string }{
	{"istio-init, iptables-nft", `iptables-nft -t nat -N ISTIO_OUTPUT; iptables-nft -t nat -A OUTPUT -j ISTIO_OUTPUT`,
		"chain ISTIO_OUTPUT in table iptables nat (iptables-nft)"},
	{"istio-init, iptables-legacy",
		`iptables-legacy -t nat -N ISTIO_OUTPUT; iptables-legacy -t nat -A OUTPUT -j ISTIO_OUTPUT`,
		"chain ISTIO_OUTPUT in table iptables nat (iptables-legacy)"},
	{"IPv6 only, iptables-nft", `ip6tables-nft -t mangle -N ISTIO_TPROXY`,
		"chain ISTIO_TPROXY in table ip6tables mangle (iptables-nft)"},
	{"IPv6 only, iptables-legacy", `ip6tables-legacy -t mangle -N ISTIO_TPROXY`,
		"chain ISTIO_TPROXY in table ip6tables mangle (iptables-legacy)"},
	{"istio-cni, native nftables", `nft add table inet istio-proxy-nat`, "nftables table istio-proxy-nat"},
	{"ambient, native nftables", `nft add table inet istio-ambient-nat`, "nftables table istio-ambient-nat"},
}

// TestForeign does not touch a namespace that Istio's own tools have redirected.
func TestForeign(t *testing.T) {
	for _, f := range foreigners {
		t.Run(f.name, func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			shell(t, lab, f.script)
			before := everything(t, lab)
			for _, backend := range append(backends, Auto, Iptables) {
				_, err := n.Apply(backend, named(t, "tproxy"))
				if !IsForeign(err) || !strings.Contains(err.Error(), f.found) {
					t.Errorf("%s: %v", backend, err)
				}
			}
			compareText(t, everything(t, lab), before)
		})
	}
}

// TestOthersChains does not take chains with similar names for Istio's.
func TestOthersChains(t *testing.T) {
	lab, n := newLab(t, testnet.Options{})
	shell(t, lab, `iptables-nft -t nat -N CNI-HOSTPORT; iptables-legacy -t nat -N KUBE-SERVICES; nft add table inet istio
		nft add table ip istio-pod-network-x
		iptables-nft -t security -N ISTIO_OUTPUT`)
	for _, backend := range backends {
		mustApply(t, n, backend, named(t, "default"))
	}
}

// TestOpen refuses paths that are not a pod's network namespace.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "own")
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/proc/self/ns/net", own, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(own, unix.MNT_DETACH)
	for path, want := range map[string]string{
		"/proc/self/ns/net":        "this is the caller's own, not a pod's",
		own:                        "this is the caller's own, not a pod's",
		"/proc/self/ns/mnt":        "not a network namespace",
		"/proc/self/ns/user":       "not a network namespace",
		file:                       "",
		dir:                        "",
		"/proc/self/status":        "",
		"":                         "",
		filepath.Join(dir, "none"): "gone",
	} {
		n, err := Open(path)
		switch {
		case err == nil:
			n.Close()
			t.Errorf("%q was opened", path)
		case want == "gone" && !IsGone(err):
			t.Errorf("%q: %v", path, err)
		case want != "gone" && path != "" && (!IsNetNS(err) || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v", path, err)
		}
	}
}

// TestOpenOwnThread opens a namespace from a thread that is in it, while the process is in another one.
func TestOpenOwnThread(t *testing.T) {
	lab, n := newLab(t, testnet.Options{})
	var err error
	lab.InPod(func() { _, err = Open(lab.Path) })
	if !IsNetNS(err) || !strings.Contains(err.Error(), "caller's own") {
		t.Error(err)
	}
	again, err := Open(lab.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	within := func(n *NetNS) (namespace string) {
		if err := n.Within(func() (err error) {
			namespace,
				err = os.Readlink("/proc/thread-self/ns/net")
			return err
		}); err != nil {
			t.Error(err)
		}
		return namespace
	}
	if within(again) != within(n) || within(n) == "" {
		t.Errorf("namespaces %q and %q", within(n), within(again))
	}
}
