package install

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/entry"
)

// Ten repairs are made at once, later ones wait 1 s and longer. After a while without repairs, it starts again.
func TestContest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c contest
		made := func(during time.Duration) (repairs int) {
			for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if c.mayRepair(time.Now()) {
					c.repaired(time.Now())
					repairs++
				}
			}
			return repairs
		}
		if got := made(900 * time.Millisecond); got != 10 || !c.goesOn() {
			t.Errorf("%d repairs in the first second", got)
		}
		if got := made(time.Minute); got < 5 || got > 10 {
			t.Errorf("%d repairs in the next minute", got)
		}
		time.Sleep(burstWithin + longestWait)
		if got := made(900 * time.Millisecond); got != 10 {
			t.Errorf("%d repairs after a while of peace", got)
		}
		var rare contest
		for range 100 { // an owner that writes its file every other second never has to wait
			if !rare.mayRepair(time.Now()) {
				t.Fatal("a repair waits without a contest")
			}
			rare.repaired(time.Now())
			time.Sleep(2 * time.Second)
		}
	})
}

// A primary that restores its file after every change does not keep the machine busy: its file is repaired ten times at
// once and then a few times. In between, the node is not ready, and says why. When the primary gives up, it is ready.
func TestFight(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	path := filepath.Join(n.ConfDir, "10-net.conflist")
	var repairs, unready, passes atomic.Int32
	var said atomic.Pointer[string]
	watcher, err := fsnotify.NewWatcher()
	await.Must(t, err)
	defer watcher.Close()
	await.Must(t, watcher.Add(n.ConfDir))
	stop, stopped := make(chan bool), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			case <-watcher.Events:
				data, err := os.ReadFile(path)
				if err == nil && string(data) != list {
					if err = os.WriteFile(path+".new", []byte(list), 0o644); err == nil {
						err = os.Rename(path+".new", path)
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		}
	}()
	began := time.Now()
	keep(t, &Keeper{Config: n.Config, Report: func(p Pass) {
		passes.Add(1)
		repairs.Add(int32(len(p.Repaired)))
		if !p.Ready && p.Contested > 0 && len(p.Repaired) == 0 {
			text := p.String()
			said.Store(&text)
			unready.Add(1)
		}
	}})
	await.Eventually(t, patience, "the contest goes on", func() bool { return unready.Load() >= 3 })
	burst := 1 + int32(time.Since(began)/burstWithin) // a machine that stands still for so long ends a contest
	if got := repairs.Load(); got > 20*burst {
		t.Errorf("%d repairs, and three times not ready", got)
	}
	if got := passes.Load(); got > 100*burst {
		t.Errorf("%d passes", got)
	}
	if text := *said.Load(); !strings.Contains(text, "again and again") || !strings.Contains(text, "without our entry") {
		t.Error(text)
	}
	close(stop)
	<-stopped
	await.Eventually(t, patience, "ready", func() bool { return n.status().Ready })
}

// Somebody removes the plugin whenever it is installed. While the repair has to wait, our entry is not in the network:
// no pod of the node would start with it. The same holds if the plugin cannot be installed at all.
func TestFightOverBinary(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	i, err := newInstaller(n.Config, new(memo))
	await.Must(t, err)
	var last Pass
	k := Keeper{Report: func(p Pass) { last = p }}
	chained := func() bool { return strings.Contains(n.read("10-net.conflist"), entry.Type) }
	for range defaultBurst {
		if k.pass(i); !last.Ready || !chained() {
			t.Fatal(last)
		}
		await.Must(t, os.Remove(filepath.Join(n.BinDir, entry.Type)))
	}
	if k.pass(i); last.Ready || last.Contested == 0 || chained() {
		t.Errorf("while its repair waits, our entry is in the network: %t; %s", chained(), last)
	}
	k.contest = contest{}
	if k.pass(i); !last.Ready || !chained() {
		t.Errorf("after the fight: %s", last)
	}
	await.Must(t, os.Remove(filepath.Join(n.BinDir, entry.Type)))
	await.Must(t, os.Rename(n.Source, n.Source+".away"))
	if k.pass(i); last.Ready || chained() {
		t.Errorf("where it cannot be put back, our entry is in the network: %t; %s", chained(), last)
	}
	await.Must(t, os.Rename(n.Source+".away", n.Source))
	if k.pass(i); !last.Ready || !chained() {
		t.Errorf("once it can: %s", last)
	}
}
