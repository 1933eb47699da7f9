package shapes

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"golang.org/x/sys/unix"
)

// moved is a node whose directory is moved or replaced under its mount. The new directory has what its owner puts
// there.
type moved struct {
	name string
	act  func(n *node) error
	says string // {bin} and {conf} are the directories as the container sees them
}

var movedNodes = []moved{
	{name: "K3s: the plugins' directory is another one after an upgrade",
		act:  func(n *node) error { return os.Rename(n.binDir, n.binDir+".old") },
		says: `"{bin}" was renamed on the node: what is mounted there was "/opt/cni/bin" and is "/opt/cni/bin.old" now`},
	{name: "the configurations' directory is another one",
		act:  func(n *node) error { return os.Rename(n.confDir, n.confDir+".old") },
		says: `"{conf}" was renamed on the node: what is mounted there was "/etc/cni/net.d" and is "/etc/cni/net.d.old" now`},
	{name: "MicroK8s: what holds it is another one after a refresh", act: func(n *node) error {
		parent := filepath.Dir(n.confDir)
		return errors.Join(os.Rename(parent, parent+".old"), os.Mkdir(parent, 0o755))
	}, says: `"{conf}" was renamed on the node: what is mounted there was "/etc/cni/net.d" and is ` +
		`"/etc/cni.old/net.d" now`},
	{name: "the configurations' directory is removed and made anew",
		act:  func(n *node) error { return os.RemoveAll(n.confDir) },
		says: `"{conf}" was removed on the node, or replaced by another: what is mounted there is "/etc/cni/net.d"`},
}

// house gives the node a file system of its own, and mounts its directories for the container.
func (n *node) house() {
	n.Helper()
	n.binDir, n.confDir = n.path("host/opt/cni/bin"), n.path("host/etc/cni/net.d")
	n.binDirs = []string{n.binDir}
	n.mount(n.path("host"), 0)
	for _, dir := range []string{n.binDir, n.confDir} {
		await.Must(n, os.MkdirAll(dir, 0o755))
		n.views[dir] = n.path("container/" + filepath.Base(dir))
		await.Must(n, os.MkdirAll(n.views[dir], 0o755))
		n.Cleanup(func() { _ = unix.Unmount(n.views[dir], unix.MNT_DETACH) })
	}
	n.usual()
	n.contain()
}

// contain mounts the node's present directories, as in a new container.
func (n *node) contain() {
	n.Helper()
	for dir, view := range n.views {
		_ = unix.Unmount(view, unix.MNT_DETACH)
		await.Must(n, unix.Mount(dir, view, "", unix.MS_BIND, ""))
	}
}

// moves replaces a directory by another one with what the node's owner puts there.
func (m moved) moves(n *node) (says string) {
	n.Helper()
	await.Must(n, m.act(n))
	for _, dir := range []string{n.binDir, n.confDir} {
		if _, err := os.Stat(dir); err == nil {
			continue
		}
		await.Must(n, os.MkdirAll(dir, 0o755))
		if dir == n.binDir {
			n.plugins(dir, "bridge", "host-local")
		} else {
			n.conf("10-net.conflist", n.list("1.0.0", "net", "bridge", "host-local"))
		}
	}
	return strings.NewReplacer("{bin}", n.seen(n.binDir), "{conf}", n.seen(n.confDir)).Replace(m.says)
}

// TestMovedDirectories has each such node twice. Installer and agent report what happened to the directory. The
// installer ends, and the agent fails its /healthz, so that the container is made again. Meanwhile every pod starts,
// without rules.
func TestMovedDirectories(t *testing.T) {
	for _, m := range movedNodes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			t.Run("installer", func(t *testing.T) { t.Parallel(); m.withInstaller(newNode(t)) })
			t.Run("agent", func(t *testing.T) { t.Parallel(); m.withAgent(newNode(t)) })
		})
	}
}

func (m moved) withInstaller(n *node) {
	n.house()
	watch := n.watch()
	n.installed()
	n.starts("with", true)
	says := m.moves(n)
	<-watch.done
	if status := watch.cmd.ProcessState.ExitCode(); status != 1 || !strings.Contains(watch.log.String(), says) {
		n.Errorf("it ends with %d, want %s", status, says)
	}
	n.entry["stateDir"] = n.path("state")
	n.starts("moved", false)
	n.contain()
	if status, said := n.run("install"); status != 0 {
		n.Errorf("install ends with %d: %s", status, said)
	}
	n.starts("again", true)
}

func (m moved) withAgent(n *node) {
	n.house()
	n.join()
	agent := n.agent()
	n.says(true, "installed", "")
	n.starts("with", true)
	says := m.moves(n)
	n.eventually("/healthz says that "+says, func() bool {
		status, body := n.ask("/healthz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "[-] directories: "+says+"\n")
	})
	if status, body := n.ask("/readyz"); status != http.StatusServiceUnavailable {
		n.Errorf("ready: %s", body)
	}
	n.starts("moved", false)
	agent.end(syscall.SIGTERM)
	n.contain()
	agent = n.agent()
	n.says(true, "installed", "")
	n.starts("again", true)
	agent.end(syscall.SIGTERM)
}
