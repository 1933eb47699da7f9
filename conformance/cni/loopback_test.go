package cni

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
)

// TestLoopback attaches mesh pods to the two networks that containerd gives them at once: that of the plugin loopback,
// which sets lo up and refuses one with any address but loopback's, and the primary one. loopback comes first; or it is
// late, and comes when the primary's plugins have ended and ours is at work.
func TestLoopback(t *testing.T) {
	t.Run("first", func(t *testing.T) {
		p := newLoopbackPod(t, newNode(t), 0)
		p.must(p.lo())
		p.must(p.primary())
		p.lives()
		p.goes()
	})
	t.Run("late", func(t *testing.T) { // many pods at once, as on a busy node
		n := newNode(t)
		var working sync.WaitGroup
		for i := range 12 {
			p := newLoopbackPod(t, n, i)
			working.Go(func() {
				ours, ended := make(chan struct{}), make(chan error)
				p.pods.exec.Exec = starts{p.pods.exec.Exec, sync.OnceFunc(func() { close(ours) })}
				go func() { ended <- p.primary() }()
				select {
				case <-ours:
					time.Sleep(late) // ADD is at lo by then; if it is not, loopback was first
					p.must(p.lo())
					p.must(<-ended)
					p.lives()
				case err := <-ended:
					p.Errorf("our plugin was not run: %v", err)
				}
				p.goes()
			})
		}
		working.Wait()
	})
}

// late is how long after the start of our plugin the other one is.
const late = 100 * time.Millisecond

// loopbackPod is a pod whose lo is down, as in a new network namespace.
type loopbackPod struct {
	*testing.T
	loopback, pods *network
	loRT, podsRT   *libcni.RuntimeConf
}

func newLoopbackPod(t *testing.T, n *node, i int) *loopbackPod {
	t.Helper()
	netns, id := n.newNetns(), fmt.Sprint("pod-", i)
	n.inNetns(netns, "ip", "link", "set", "lo", "down")
	p := &loopbackPod{T: t, pods: n.network(n.conflist("1.0.0", "pods", "bridge", nil)),
		podsRT: runtimeConf(id, netns, mesh), loRT: runtimeConf(id, netns, nil)}
	// go-cni's WithLoNetwork
	p.loopback = n.network([]byte(`{"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]}`))
	p.loRT.IfName = "lo"
	return p
}

func (p *loopbackPod) lo() error {
	_, err := p.loopback.cni.AddNetworkList(p.Context(), p.loopback.list, p.loRT)
	return err
}

func (p *loopbackPod) primary() error {
	_, err := p.pods.cni.AddNetworkList(p.Context(), p.pods.list, p.podsRT)
	return err
}

func (p *loopbackPod) must(err error) {
	p.Helper()
	if err != nil {
		p.Error(err)
	}
}

// lives expects both networks to be there, and that CHECK, which containerd does not use, says so.
func (p *loopbackPod) lives() {
	p.Helper()
	text := p.pods.inNetns(p.podsRT.NetNS, "ip", "address", "show", "lo")
	if !strings.Contains(text, "LOOPBACK,UP") || !strings.Contains(text, "inet6 ::6/128") {
		p.Errorf("lo is %s", text)
	}
	check := *p.loopback.list
	check.CNIVersion = "1.0.0"
	p.must(errors.Join(p.loopback.cni.CheckNetworkList(p.Context(), &check, p.loRT),
		p.pods.cni.CheckNetworkList(p.Context(), p.pods.list, p.podsRT)))
}

// goes has containerd remove one network after the other: loopback sets lo down, which takes its addresses.
func (p *loopbackPod) goes() {
	p.Helper()
	p.loopback.del(p, p.loRT)
	p.pods.del(p, p.podsRT)
	p.pods.wantUntouched(p.podsRT.NetNS)
	if text := p.pods.inNetns(p.podsRT.NetNS, "ip", "address", "show", "lo"); strings.Contains(text, "inet6") {
		p.Errorf("lo has been left as %s", text)
	}
}

// starts tells when our plugin is executed.
type starts struct {
	invoke.Exec
	ours func()
}

// ExecPlugin implements invoke.Exec.
func (s starts) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	if filepath.Base(path) == pluginType {
		s.ours()
	}
	return s.Exec.ExecPlugin(ctx, path, stdin, env)
}
