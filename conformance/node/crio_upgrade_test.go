package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio/wire"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// An upgrade while pods exist, then a restart of CRI-O: CHECK fails neither for a pod with rules of the old release nor
// for one outside the mesh.
func TestCRIOUpgrade(t *testing.T) {
	for _, c := range []crioCase{crioCases()[0], crioCases()[5]} {
		t.Run(c.String(), func(t *testing.T) {
			r := onCRIO(t, c.release)
			r.chain(c)
			plain, cart := r.plain("plain"), r.meshed(r.mesh("cart"), "eth0")
			r.aged(cart)
			r.agent.end(syscall.SIGTERM)
			r.cri.Restart() // without an agent to ask
			r.addressed(plain, cart)
			next, err := os.ReadFile(filepath.Join(isolated.BinDir(), plugin))
			must(t, err)
			must(t, os.WriteFile(r.path("next"), append(next, 0), 0o755)) // bytes after the end of an ELF file are ignored
			r.startAgent(append(r.flags, "--source="+r.path("next"))...)
			r.ready()
			r.eventually("the next release is installed", func() bool {
				info, err := os.Stat(r.path("bin/" + plugin))
				return err == nil && info.Size() == int64(len(next)+1)
			})
			r.forget()
			r.cri.Restart()
			r.addressed(plain, cart)
			for _, s := range []wire.Sandbox{plain, cart} {
				r.wantCalled(plugin, s, "CHECK")
			}
			must(t, isolated.InNetNS(cart.NetNS, func() error { return exec.Command("nft", "flush", "ruleset").Run() }))
			r.cri.Restart()
			if s := r.cri.Sandboxes()[cart.ID]; len(s.Addresses) > 0 {
				t.Error("CHECK has not seen that the rules are gone")
			}
			r.stop(plain)
			r.stop(cart)
			r.nothing()
		})
	}
}

// aged gives a pod the rules of an earlier release, and a record of them.
func (r *crioRig) aged(s wire.Sandbox) {
	r.Helper()
	before := filepath.Join(build.Root(), "plugin", "netfilter", "testdata", "before", "default.nft")
	must(r, isolated.InNetNS(s.NetNS, func() error {
		if err := exec.Command("nft", "flush", "ruleset").Run(); err != nil {
			return err
		}
		return exec.Command("nft", "-f", before).Run()
	}))
	rec, err := r.store.Get(s.ID, "eth0")
	must(r, err)
	rec.RuleSetHash = "0123456789abcdef"
	must(r, r.store.Put(rec))
}
