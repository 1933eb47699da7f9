package install

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/watch"
	"github.com/istio-pod-network/controller/internal/watch/exhausted"
	"golang.org/x/sys/unix"
)

// unbounded is a contest for tests with many changes: each repair is made at once.
var unbounded = contest{burst: math.MaxInt}

// watched runs a Keeper that never ticks, so it repairs only what it has noticed.
func watched(t *testing.T, n node) (passes *atomic.Int32) {
	passes = new(atomic.Int32)
	keep(t, &Keeper{Config: n.Config, Tick: time.Hour, Report: func(Pass) { passes.Add(1) }, contest: unbounded})
	await.Eventually(t, patience, "the first pass", func() bool { return passes.Load() > 0 })
	return passes
}

// Every change is repaired, again and again.
func TestKeeperRepairs(t *testing.T) {
	for _, dropIn := range []DropIn{DropInNever, DropInAlways} {
		t.Run(string(dropIn), func(t *testing.T) {
			n := newNode(t, "10-net.conflist", list)
			n.DropIn = dropIn
			watched(t, n)
			path := func(name string) string { return filepath.Join(n.ConfDir, name) }
			for round := range 5 {
				for what, spoil := range map[string]func() error{
					"primary written": func() error { return os.WriteFile(path("10-net.conflist"), []byte(list), 0o644) },
					"binary deleted":  func() error { return os.Remove(n.binary()) },
					"binary emptied":  func() error { return os.Truncate(n.binary(), 0) },
					"duplicates": func() error {
						return os.WriteFile(path("10-net.conflist"), []byte(strings.Replace(list, `{
      "type": "ptp"`, `{"type":"istio-pod-network"},{"type":"istio-pod-network"},{"type":"ptp"`, 1)), 0o644)
					},
					"drop-ins deleted": func() error { return removeTree(path("net")) },
				} {
					if err := spoil(); err != nil {
						t.Fatal(round, what, err)
					}
					await.Eventually(t, patience, what+" repaired", func() bool { return n.status().Ready })
				}
			}
			first := "05-new.conflist"
			n.write(first, list)
			await.Eventually(t, patience, "the new one chained", func() bool {
				s := n.status()
				return s.Ready && strings.HasSuffix(s.Active, first)
			})
			if err := os.Remove(path(first)); err != nil {
				t.Fatal(err)
			}
			await.Eventually(t, patience, "the old one chained", func() bool { return n.status().Ready })
		})
	}
}

// removeTree removes a directory into which the Keeper may be writing.
func removeTree(dir string) error {
	for {
		if err := os.RemoveAll(dir); !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
}

// A pass reports the causes of its repairs, and none if there was nothing to repair.
func TestKeeperCauses(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	var passes []Pass
	k := Keeper{Report: func(p Pass) { passes = append(passes, p) }}
	i, err := newInstaller(n.Config, new(memo))
	if err != nil {
		t.Fatal(err)
	}
	conflist := filepath.Join(n.ConfDir, "10-net.conflist")
	seen := map[Cause]bool{}
	for _, step := range []struct {
		what  string
		spoil func() error
		want  []Cause
	}{
		{"first", func() error { return nil }, []Cause{CauseBinaryMissing, CauseEntryMissing}},
		{"nothing", func() error { return nil }, nil},
		{"binary deleted", func() error { return os.Remove(n.binary()) }, []Cause{CauseBinaryMissing}},
		{"binary written", func() error { return os.WriteFile(n.binary(), []byte("older"), 0o755) },
			[]Cause{CauseBinaryChanged}},
		{"primary written", func() error { return os.WriteFile(conflist, []byte(list), 0o644) }, []Cause{CauseEntryMissing}},
		{"entry changed", func() error {
			return replaceIn(conflist, `"type": "istio-pod-network"`, `"type": "istio-pod-network", "stale": true`)
		}, []Cause{CauseEntryChanged}},
		{"twice", func() error {
			return replaceIn(conflist, "{\n      \"type\": \"ptp\"",
				"{\"type\": \"istio-pod-network\"}, {\n      \"type\": \"ptp\"")
		}, []Cause{CauseDuplicates}},
		{"a network before", func() error {
			return os.WriteFile(filepath.Join(n.ConfDir, "05-new.conflist"), []byte(list), 0o644)
		}, []Cause{CauseEntryMissing}},
	} {
		if err := step.spoil(); err != nil {
			t.Fatal(step.what, err)
		}
		k.pass(i)
		p := passes[len(passes)-1]
		if !p.Ready || p.Err != nil || !slices.Equal(p.Repaired, step.want) {
			t.Errorf("%s: repaired %q, want %q; %s", step.what, p.Repaired, step.want, p)
		}
		for _, cause := range p.Repaired {
			seen[cause] = true
		}
	}
	for _, cause := range Causes {
		if !seen[cause] {
			t.Errorf("no step for %q", cause)
		}
	}
}

// replaceIn changes the text of a file.
func replaceIn(path, from, to string) error {
	data, err := os.ReadFile(path)
	if err == nil && !strings.Contains(string(data), from) {
		err = fmt.Errorf("%s does not contain %q", path, from)
	}
	return errors.Join(err, os.WriteFile(path, []byte(strings.Replace(string(data), from, to, 1)), 0o644))
}

// watchOf returns a watching for the node's directories.
func watchOf(t *testing.T, n node) watching {
	i, err := newInstaller(n.Config, new(memo))
	await.Must(t, err)
	w := watching{Dirs: watch.New(func(err error) { t.Error(err) }), installer: i, inodes: map[string]os.FileInfo{}}
	t.Cleanup(w.Close)
	if !w.renew() {
		t.Fatal("nothing is watched")
	}
	return w
}

// A directory that returns with the same inode is watched again: the kernel has ended its watch.
func TestKeeperSameInode(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	w := watchOf(t, n)
	await.Must(t, os.Rename(n.ConfDir, n.ConfDir+".away"))
	await.Must(t, os.Rename(n.ConfDir+".away", n.ConfDir))
	for e := range w.Events() {
		if e.Name == n.ConfDir && w.matters(e) {
			break
		}
	}
	if w.renew() {
		t.Error("the same directory counts as another")
	}
	n.write("20-net.conflist", list)
	select {
	case e := <-w.Events():
		if !w.matters(e) {
			t.Errorf("what comes first is %s", e)
		}
	case <-time.After(patience):
		t.Error("nothing is noticed in the directory any more")
	}
}

// Other files cause no work: of the kernel's events, up to that of a configuration which is written last, none makes
// next return, however many there are.
func TestKeeperIgnores(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	w := watchOf(t, n)
	for _, name := range []string{"readme.txt", "calico-kubeconfig", ".10-net.conflist.swp", "10-net.conflist~"} {
		n.write(name, "x")
	}
	await.Must(t, os.WriteFile(filepath.Join(n.BinDir, "bridge"), []byte("x"), 0o755))
	const last = "99-last.conflist"
	n.write(last, list)
	unrelated, names := []fsnotify.Event{}, map[string]bool{}
	e := <-w.Events()
	for ; filepath.Base(e.Name) != last; e = <-w.Events() {
		unrelated, names[e.Name] = append(unrelated, e), true
	}
	if len(names) != 5 {
		t.Errorf("events of %v alone", names)
	}
	events, ended := make(chan fsnotify.Event), make(chan bool)
	go func() { ended <- w.next(t.Context(), time.Hour, events, nil) }()
	for range 100 {
		for _, e := range unrelated {
			select {
			case events <- e:
			case <-ended:
				t.Fatalf("a pass before, or for, %s", e)
			}
		}
	}
	events <- e
	if !<-ended {
		t.Errorf("no pass for %s", e)
	}
}

// The Keeper waits for a primary, and for its directory. When the Keeper ends, it changes nothing.
func TestKeeperWaits(t *testing.T) {
	n := newNode(t)
	if err := os.Remove(n.ConfDir); err != nil {
		t.Fatal(err)
	}
	t.Run("run", func(t *testing.T) {
		watched(t, n)
		if err := os.Mkdir(n.ConfDir, 0o755); err != nil {
			t.Fatal(err)
		}
		n.write("10-one.conf", single)
		await.Eventually(t, patience, "chained", func() bool { return n.status().Ready })
	})
	if !n.status().Ready {
		t.Error("gone with the keeper")
	}
}

// Without inotify, changes are repaired too, and the reason for the delay is reported once.
func TestKeeperWithoutInotify(t *testing.T) {
	exhausted.Run(t, func(t *testing.T, _ func()) {
		n := newNode(t, "10-net.conflist", list)
		said := make(chan error, 100)
		keep(t, &Keeper{Config: n.Config, Tick: time.Hour, Warn: func(err error) { said <- err }})
		for range 3 {
			await.Eventually(t, patience, "it is installed", func() bool { return n.status().Ready })
			n.write("10-net.conflist", list)
			await.Eventually(t, patience, "it is repaired", func() bool { return n.status().Ready })
		}
		if err := <-said; !strings.Contains(err.Error(), "raise the node's sysctl fs.inotify.") || len(said) > 0 {
			t.Errorf("said %v, and %d times more", err, len(said))
		}
	})
}
