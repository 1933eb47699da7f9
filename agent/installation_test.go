package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/install/installtest"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/entry"
)

// ChainedSince decides whether a pod bypasses the mesh. It is reset if our entry was missing: pods made meanwhile
// came too early. A missing binary does not reset it: without the binary no pod could be made.
func TestChainedSince(t *testing.T) {
	memory := filepath.Join(t.TempDir(), "state", memoryFile)
	config := install.Config{}
	off := false
	fresh := func() *installation {
		m := newMetrics()
		version := func(context.Context) (string, error) { return "", nil }
		return newInstallation(config, off, memory, version, m.installed, m.contested, m.repairs,
			agenttest.Quiet())
	}
	i := fresh()
	pass := func(ready bool, causes ...install.Cause) time.Time {
		time.Sleep(time.Millisecond)
		i.report(install.Pass{Status: install.Status{Ready: ready}, Repaired: causes})
		return i.ChainedSince()
	}
	if !pass(false).IsZero() {
		t.Error("chained, and not ready")
	}
	first := pass(true, install.CauseEntryMissing)
	if first.IsZero() || !pass(true).Equal(first) || !pass(true, install.CauseBinaryMissing).Equal(first) {
		t.Error("chained since another time, although our entry was never missing")
	}
	if !pass(false).IsZero() || !pass(true).Equal(first) {
		t.Error("a pass that failed is not remembered")
	}
	contested := time.Now()
	for _, ready := range []bool{false, true} {
		i.report(install.Pass{Status: install.Status{Ready: ready}, Contested: time.Second})
		if since := i.ChainedSince(); since.Before(contested) {
			t.Errorf("contested, and chained since %v", since)
		}
	}
	i = fresh()
	if !pass(true).Equal(first) {
		t.Error("the next agent does not know since when")
	}
	for _, cause := range []install.Cause{install.CauseEntryMissing, install.CauseEntryChanged} {
		if again := pass(true, cause); !again.After(first) {
			t.Errorf("%s: chained since %v", cause, again)
		}
		first = i.ChainedSince()
	}
	if old := i.ChainedFirst(); !old.Equal(first) {
		t.Errorf("another entry, and the first is %v, not %v", old, first)
	}
	if pass(false); !i.ChainedFirst().Equal(first) || pass(true, install.CauseEntryMissing).Equal(first) ||
		!i.ChainedFirst().Equal(first) {
		t.Error("our entry was missing, and it is not known that it was there before")
	}
	if i = fresh(); !i.ChainedFirst().Equal(first) {
		t.Error("the next agent does not know when it was chained for the first time")
	}
	if off = true; !fresh().ChainedFirst().IsZero() {
		t.Error("others serve the pods of this node")
	}
	if off = false; !fresh().ChainedFirst().IsZero() {
		t.Error("others have served the pods of this node meanwhile")
	}
	i = fresh()
	pass(true)
	other, err := entry.Parse([]byte(`{"type": "istio-pod-network", "excludeNamespaces": []}`))
	await.Must(t, err)
	config.Entry = other
	if i = fresh(); !i.ChainedFirst().IsZero() || !pass(true).Equal(i.ChainedFirst()) {
		t.Error("by other settings it was chained before")
	}
	if err := os.WriteFile(i.path, []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if i = fresh(); pass(true).Before(first) {
		t.Error("a torn memory is believed")
	}
}

// keeping is an installation on a node of its own, in a temporary directory.
type keeping struct {
	*installation
	metrics *metrics
	memory  string
	primary string // path of the primary's configuration file
}

func keepOn(t *testing.T, dir string, version func(context.Context) (string, error)) keeping {
	t.Helper()
	k := keeping{metrics: newMetrics(), memory: filepath.Join(dir, "state", memoryFile),
		primary: filepath.Join(dir, "net.d", "10-net.conflist")}
	config := install.Config{BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Dir(k.primary),
		Source: filepath.Join(dir, "plugin"),
		Mode:   install.ModeChain, DropIn: install.DropInAuto,
	}
	k.installation = newInstallation(config, false, k.memory, version, k.metrics.installed, k.metrics.contested,
		k.metrics.repairs, agenttest.Quiet())
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- k.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return k
}

func (k keeping) eventually(t *testing.T, what string, chained install.Chaining) {
	t.Helper()
	await.Eventually(t, time.Minute, what, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.last.Ready && k.last.Chained == chained
	})
}

// The installation follows what it learns of the runtime: a drop-in if the runtime reads drop-ins, an entry in the
// primary's file if it does not. The next agent still knows that it does not.
func TestChainsAsTheRuntimeReads(t *testing.T) {
	dir := t.TempDir()
	await.Must(t, os.MkdirAll(filepath.Join(dir, "net.d"), 0o755))
	await.Must(t, os.WriteFile(filepath.Join(dir, "net.d", "10-net.conflist"),
		[]byte(`{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}`), 0o600))
	installtest.Plugin(t, filepath.Join(dir, "plugin"), "")
	installtest.Programs(t, filepath.Join(dir, "bin"), "bridge")
	reads := func(context.Context) (string, error) { return "containerd://2.1.4", nil }

	t.Run("not known at first", func(t *testing.T) {
		asked, answer := make(chan bool), make(chan error)
		k := keepOn(t, dir, func(ctx context.Context) (string, error) {
			select {
			case asked <- true:
				return "containerd://2.1.4", <-answer
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
		if ready, state := k.ready(); ready {
			t.Errorf("ready before the first pass: %q", state)
		}
		<-asked
		answer <- errors.New("connection refused")
		<-asked // the second request, for which the installation does not wait
		k.eventually(t, "the entry is spliced", install.Spliced)
		answer <- nil
		k.eventually(t, "the entry is dropped in", install.DroppedIn)
		if ready, state := k.ready(); !ready {
			t.Errorf("not ready: %q", state)
		}
	})
	t.Run("known to read drop-ins", func(t *testing.T) {
		k := keepOn(t, dir, reads)
		k.eventually(t, "the entry is dropped in", install.DroppedIn)
		k.DistrustDropIn()
		k.DistrustDropIn()
		k.eventually(t, "the entry is spliced", install.Spliced)
		await.Eventually(t, time.Minute, "it is remembered", func() bool {
			data, err := os.ReadFile(k.memory)
			return err == nil && strings.Contains(string(data), `"dropInDistrusted":true`)
		})
	})
	t.Run("the next agent", func(t *testing.T) {
		k := keepOn(t, dir, reads)
		k.eventually(t, "the entry is spliced", install.Spliced)
		k.DistrustDropIn() // called by the patrol after a pod bypassed the mesh, for whatever reason
		await.Must(t, os.WriteFile(k.primary, []byte("{"), 0o600))
		await.Eventually(t, time.Minute, "a primary that cannot be read is noticed",
			func() bool { ready, _ := k.ready(); return !ready })
		if since := k.ChainedSince(); !since.IsZero() {
			t.Errorf("chained since %v into nothing", since)
		}
	})
}

// An agent with --no-install writes nothing, and is ready.
func TestNoInstall(t *testing.T) {
	m, dir := newMetrics(), t.TempDir()
	i := newInstallation(install.Config{BinDir: filepath.Join(dir, "bin")}, true, filepath.Join(dir, memoryFile), nil,
		m.installed, m.contested, m.repairs, agenttest.Quiet())
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := i.run(ctx); err != nil {
		t.Error(err)
	}
	if ready, state := i.ready(); !ready {
		t.Errorf("not ready: %q", state)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%v %v", entries, err)
	}
}

// If the memory could not be written, it is written as soon as that is possible, at the latest when the agent ends.
func TestMemoryIsKept(t *testing.T) {
	m, dir := newMetrics(), t.TempDir()
	state := filepath.Join(dir, "state")
	config := install.Config{
		BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"), RuntimeVersion: "containerd://2.1.4",
	}
	installation := func() *installation {
		path := filepath.Join(state, memoryFile)
		return newInstallation(config, false, path, nil, m.installed, m.contested, m.repairs, agenttest.Quiet())
	}
	await.Must(t, os.WriteFile(state, nil, 0o600)) // a file where the directory should be
	i := installation()
	i.report(install.Pass{Status: install.Status{Ready: true, Chained: install.DroppedIn}})
	await.Must(t, os.Remove(state))
	i.remember()
	if installation().memory.ChainedSince.IsZero() {
		t.Error("since when the plugin is chained was not written once it could be")
	}
	i.DistrustDropIn()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	await.Must(t, i.run(ctx))
	if !installation().memory.DropInDistrusted {
		t.Error("the fallback is forgotten")
	}
}

// The first installation waits a moment for the runtime's version. If it comes late, the installation starts without it
// and is made again when the version comes: by the request that is still waiting, not by a second one.
func TestVersionIsLate(t *testing.T) {
	for name, c := range map[string]struct {
		after   time.Duration // how long the answer takes
		fails   int           // number of failed requests before it
		known   bool          // the version is known when begin returns
		asked   int
		waiting time.Duration
	}{
		"at once":        {0, 0, true, 1, 0},
		"in time":        {4 * time.Second, 0, true, 1, 4 * time.Second},
		"late":           {25 * time.Second, 0, false, 1, versionLate},
		"refused before": {0, 1, false, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, asked := newMetrics(), 0
				config := install.Config{Mode: install.ModeChain, DropIn: install.DropInAuto}
				i := newInstallation(config, false, "", func(ctx context.Context) (string, error) {
					asked++
					if asked <= c.fails {
						return "", errors.New("no API server")
					}
					select {
					case <-time.After(c.after):
						return "containerd://2.1.4", nil
					case <-time.After(kube.Timeout(ctx)):
						return "", context.DeadlineExceeded
					}
				}, m.installed, m.contested, m.repairs, agenttest.Quiet())
				var asking sync.WaitGroup
				began := time.Now()
				i.begin(t.Context(), &asking)
				if took := time.Since(began); took != c.waiting || i.asksVersion() == c.known {
					t.Errorf("begins after %v, the version known: %t", took, !i.asksVersion())
				}
				asking.Wait()
				changed := len(i.again) > 0
				if i.asksVersion() || asked != c.asked || changed == c.known {
					t.Errorf("known in the end: %t; asked %d times; to be made again: %t", !i.asksVersion(), asked, changed)
				}
			})
		})
	}
}

// A version that is never told is asked for every five minutes at most, so that the agents of all nodes are no load.
func TestVersionIsNeverTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, asked := newMetrics(), 0
		i := newInstallation(install.Config{Mode: install.ModeChain, DropIn: install.DropInAuto}, false, "",
			func(context.Context) (string, error) { asked++; return "", errors.New("forbidden") },
			m.installed, m.contested, m.repairs, agenttest.Quiet())
		ctx, end := context.WithTimeout(t.Context(), 10*time.Hour)
		defer end()
		var asking sync.WaitGroup
		i.begin(ctx, &asking)
		asking.Wait()
		if asked < 80 || asked > 130 {
			t.Errorf("asked %d times in ten hours", asked)
		}
	})
}
