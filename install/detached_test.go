package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"golang.org/x/sys/unix"
)

// A directory that is mounted into a container may be renamed or removed on the node, and replaced: the mount keeps the
// former one. The Keeper notices it, whatever both contain, and reports it from then on.
func TestDetached(t *testing.T) {
	for what, c := range map[string]struct {
		act  func(dir string) error
		says string
	}{
		"nothing": {func(string) error { return nil }, ""},
		"renamed and made again": {func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o755))
		}, "was renamed on the node"},
		"its parent renamed": {func(dir string) error {
			return os.Rename(filepath.Dir(dir), filepath.Dir(dir)+".old")
		}, "was renamed on the node"},
		"removed and made again": {func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755))
		}, "was removed on the node"},
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t)
			onNode := filepath.Join(t.TempDir(), "current dir", "net.d") // a path that mountinfo escapes
			await.Must(t, os.MkdirAll(onNode, 0o755))
			await.Must(t, os.WriteFile(filepath.Join(onNode, "10-net.conflist"), []byte(list), 0o644))
			await.Must(t, unix.Mount(onNode, n.ConfDir, "", unix.MS_BIND, ""))
			t.Cleanup(func() { _ = unix.Unmount(n.ConfDir, unix.MNT_DETACH) })
			var last Pass
			k := Keeper{Report: func(p Pass) { last = p }}
			i, err := newInstaller(n.Config, new(memo))
			await.Must(t, err)
			if k.pass(i); !last.Ready || last.Detached != "" {
				t.Fatalf("%s: %+v", last, last)
			}
			await.Must(t, c.act(onNode))
			for range 2 {
				k.pass(i)
				if !strings.Contains(last.Detached, c.says) || (last.Detached == "") != (c.says == "") ||
					last.Ready != (c.says == "") {
					t.Errorf("%q; %s", last.Detached, last)
				}
			}
		})
	}
}

// If the first configuration is a symbolic link to a target that the installer does not see, the next one is not used
// as the network.
func TestDanglingLink(t *testing.T) {
	n := newNode(t, "20-next.conflist", list)
	link, target := filepath.Join(n.ConfDir, "10-net.conflist"), filepath.Join(t.TempDir(), "of-the-node")
	await.Must(t, os.Symlink(target, link))
	fails(t, Install(n.Config), link, target, "mount the directory of the target")
	if s := n.status(); s.Ready || !strings.Contains(strings.Join(s.Missing, " "), target) {
		t.Errorf("%+v", s)
	}
	if n.read("20-next.conflist") != list {
		t.Error("chained into the next")
	}
	n.Primary = "20-next.conflist"
	n.install()
	n.Primary = ""
	await.Must(t, os.WriteFile(target, []byte(list), 0o644))
	n.install()
	if s := n.status(); !s.Ready || s.Active != target {
		t.Errorf("%+v", s)
	}
}

// If the node has another directory of plugins now, the runtime does not find our binary: our entry is removed until
// the container is created again.
func TestDetachedPlugins(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	onNode := filepath.Join(t.TempDir(), "bin")
	await.Must(t, os.Rename(n.BinDir, onNode))
	await.Must(t, os.Mkdir(n.BinDir, 0o755))
	mount := func() {
		await.Must(t, unix.Mount(onNode, n.BinDir, "", unix.MS_BIND, ""))
		t.Cleanup(func() { _ = unix.Unmount(n.BinDir, unix.MNT_DETACH) })
	}
	mount()
	var last Pass
	i, err := newInstaller(n.Config, new(memo))
	await.Must(t, err)
	k := Keeper{Report: func(p Pass) { last = p }}
	if k.pass(i); !last.Ready {
		t.Fatal(last)
	}
	await.Must(t, errors.Join(os.Rename(onNode, onNode+".old"), os.Mkdir(onNode, 0o755)))
	await.Must(t, os.WriteFile(filepath.Join(onNode, "ptp"), nil, 0o755))
	for range 2 {
		if k.pass(i); last.Ready || last.Detached == "" || n.read("10-net.conflist") != list {
			t.Errorf("%s\n%s", last, n.read("10-net.conflist"))
		}
	}
	mount()
	k = Keeper{Report: k.Report}
	if k.pass(i); !last.Ready || last.Detached != "" {
		t.Errorf("in a container that is made again: %s", last)
	}
}
