package shapes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
)

// fight is a node on which somebody undoes the installer's changes as soon as they are made.
type fight struct {
	name string
	make func(n *node)
	// undo undoes the changes, and reports whether there were any.
	undo func(n *node) (bool, error)
	// unarmed says that no pod can be repaired before the end of the fight.
	unarmed bool
}

var fights = []fight{
	{name: "the owner renames its file into place", make: (*node).usual, undo: func(n *node) (bool, error) {
		return n.restore(func(path string, data []byte) error {
			return errors.Join(os.WriteFile(path+".new", data, 0o644), os.Rename(path+".new", path))
		})
	}},
	{name: "the owner writes its file in place", make: (*node).usual, undo: func(n *node) (bool, error) {
		return n.restore(func(path string, data []byte) error { return os.WriteFile(path, data, 0o644) })
	}},
	{name: "the drop-in is removed", make: func(n *node) {
		n.usual()
		n.flags = []string{"--drop-in=always"}
	}, undo: func(n *node) (bool, error) {
		return gone(os.Remove(filepath.Join(n.confDir, "net", "99-istio-pod-network.conf")))
	}},
	{name: "the binary is removed", make: (*node).usual, unarmed: true, undo: func(n *node) (bool, error) {
		return gone(os.Remove(filepath.Join(n.binDir, plugin)))
	}},
}

// gone converts the error of a removal.
func gone(err error) (bool, error) {
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// restore writes the list of the node's owner, unless it is there.
func (n *node) restore(write func(path string, data []byte) error) (bool, error) {
	path, own := filepath.Join(n.confDir, "10-net.conflist"), n.list("1.0.0", "net", "bridge", "host-local")
	if data, err := os.ReadFile(path); err != nil || string(data) == own {
		return false, err
	}
	return true, write(path, []byte(own))
}

// rages runs undo again and again. The caller stops that with the returned function, which returns how often it undid
// something.
func (f fight) rages(n *node) (stop func() int) {
	end, undone := make(chan bool), make(chan int)
	go func() {
		times := 0
		defer func() { undone <- times }()
		for {
			select {
			case <-end:
				return
			case <-time.After(2 * time.Millisecond):
				did, err := f.undo(n)
				if err != nil {
					n.Error(err)
					return
				}
				if did {
					times++
				}
			}
		}
	}()
	return func() int { close(end); return <-undone }
}

// TestFights runs each fight twice: with the installer's `watch`, and with the agent. During the fight every pod gets a
// network, but no app of a mesh pod starts without rules.
func TestFights(t *testing.T) {
	for _, f := range fights {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			t.Run("installer", func(t *testing.T) { t.Parallel(); f.withInstaller(newNode(t)) })
			t.Run("agent", func(t *testing.T) { t.Parallel(); f.withAgent(newNode(t)) })
		})
	}
}

// podsInAFight is the number of pods of each kind.
const podsInAFight = 3

func (f fight) withInstaller(n *node) {
	f.make(n)
	watch := n.watch()
	n.installed()
	stop := f.rages(n)
	n.eventually("it is known to be contested", func() bool { return strings.Contains(watch.log.String(), contested) })
	for i := range podsInAFight {
		for _, mesh := range []bool{false, true} {
			p := n.pod(fmt.Sprint("fight", i), mesh)
			p.added()
			if mesh {
				p.held("--mode=probe")
			}
		}
	}
	n.Logf("undone %d times", stop())
	n.installed()
	n.starts("after", true)
	watch.end(syscall.SIGTERM)
}

// installed waits until status reports that the plugin is installed.
func (n *node) installed() {
	n.Helper()
	n.eventually("the plugin is installed", func() bool { status, _ := n.run("status"); return status == 0 })
}

// contested is a text in the log and the readiness during a fight.
const contested = "again and again"

func (f fight) withAgent(n *node) {
	f.make(n)
	n.join()
	agent := n.agent()
	n.says(true, "installed", "")
	stop := f.rages(n)
	n.eventually("it is known to be contested, and not ready", func() bool {
		status, body := n.ask("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, contested)
	})
	var pods []*pod
	for i := range podsInAFight {
		n.pod(fmt.Sprint("fight", i), false).added()
		p := n.pod(fmt.Sprint("fight", i), true)
		p.added()
		p.held("--mode=any")
		if pods = append(pods, p); !f.unarmed {
			p.repaired()
		}
	}
	n.Logf("undone %d times", stop())
	for _, p := range pods {
		p.repaired()
	}
	n.says(true, "installed", "")
	n.starts("after", true)
	agent.end(syscall.SIGTERM)
}

// added gives the pod its network, with retries as by the kubelet.
func (p *pod) added() {
	p.Helper()
	await.Success(p, patience, "the pod "+p.name+" gets a network", func() error {
		err := p.add(context.Background())
		if err != nil && p.cni != nil {
			_ = p.cni.DelNetworkList(context.Background(), p.list, p.arguments())
		}
		return err
	})
}

// held fails the test if the wait lets the app start without rules.
func (p *pod) held(mode string) {
	p.Helper()
	status, out := p.wait(mode, "--timeout=1")
	if rules, err := hasRules(p.netns); err != nil || status == 0 && !rules {
		p.Errorf("%s has rules: %t, and its wait ends with %d: %s; %v", p.name, rules, status, out, err)
	}
}

// repaired waits until the agent has repaired the pod and its app can start.
func (p *pod) repaired() {
	p.Helper()
	p.eventually("the pod "+p.name+" has rules and its mark", func() bool { return p.isRecorded() && p.isMarked() })
	if status, out := p.wait("--mode=any", "--timeout=60"); status != 0 {
		p.Errorf("%s: the wait ends with %d: %s", p.name, status, out)
	}
	if events := p.events(); strings.Contains(events, "MeshBypassed") {
		p.Errorf("%s: %s", p.name, events)
	}
}

// events returns the reasons of the pod's Events.
func (p *pod) events() string {
	list, err := client.CoreV1().Events(shop).List(context.Background(), eventsOf(p.name))
	await.Must(p, err)
	data, err := json.Marshal(list.Items)
	await.Must(p, err)
	return string(data)
}
