package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/istio-pod-network/controller/install/installtest"
	"github.com/istio-pod-network/controller/internal/entry"
	"golang.org/x/sys/unix"
)

const (
	list = "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"net\",\n  \"plugins\": [\n    {\n      \"type\": " +
		"\"ptp\"\n    }\n  ]\n}\n"
	single = "{\"name\": \"one\", \"cniVersion\": \"0.4.0\", \"type\": \"ptp\"}\n"
)

// For every primary and every way of chaining: the entry is chained as libcni sees it, a second Install changes
// nothing, and Uninstall restores the original bytes and leaves nothing of ours.
func TestInstallAndBack(t *testing.T) {
	for _, dropIn := range []DropIn{DropInAuto, DropInAlways, DropInNever} {
		for _, version := range []string{"", "containerd://2.1.4", "containerd://2.0.0"} {
			for name, contents := range map[string]string{"10-net.conflist": list, "10-one.conf": single,
				"10-one.json": single} {
				t.Run(fmt.Sprintf("%s,%s,%s", dropIn, version, name), func(t *testing.T) {
					there(t, dropIn, version, name, contents)
				})
			}
		}
	}
}

func there(t *testing.T, dropIn DropIn, version, name, contents string) {
	n := newNode(t, name, contents)
	n.DropIn, n.RuntimeVersion = dropIn, version
	if err := os.Chmod(filepath.Join(n.ConfDir, name), 0o640); err != nil {
		t.Fatal(err)
	}
	before := n.tree()
	if s := n.status(); s.Ready || s.Chained != NotChained || s.Binary.Installed {
		t.Errorf("before: %+v", s)
	}
	n.install()
	s := n.status()
	want := Spliced
	if strings.HasSuffix(name, ".conflist") && (dropIn == DropInAlways || dropIn == DropInAuto &&
		strings.Contains(version, "2.1")) {
		want = DroppedIn
	}
	if !s.Ready || s.Chained != want || len(s.Missing) > 0 || len(s.Others) > 0 {
		t.Errorf("%+v", s)
	}
	installtest.Chained(t, s.Active)
	if info, err := os.Stat(s.Active); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	done := n.tree()
	n.install()
	if again := n.tree(); again != done {
		t.Errorf("the second time changed\n%s\nto\n%s", done, again)
	}
	n.uninstall()
	if after := n.tree(); after != before {
		t.Errorf("after uninstall:\n%s\nbefore install:\n%s", after, before)
	}
}

// When the way of chaining changes, our entry is there once at the end.
func TestChangeOfWay(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	for _, way := range []DropIn{DropInNever, DropInAlways, DropInNever, DropInAlways} {
		n.DropIn = way
		n.install()
		if s := n.status(); !s.Ready || s.Duplicates != 0 {
			t.Errorf("%s: %+v", way, s)
		}
		installtest.Chained(t, filepath.Join(n.ConfDir, "10-net.conflist"))
	}
	if n.read("10-net.conflist") != list {
		t.Error("a drop-in and still spliced")
	}
	n.write("10-net.conflist", strings.Replace(list, `"name"`, `"loadOnlyInlinedPlugins": true, "name"`, 1))
	n.install()
	if s := n.status(); s.Chained != Spliced {
		t.Errorf("no drop-in is read, and still %+v", s)
	}
}

// Our own files for Multus.
func TestOwnFile(t *testing.T) {
	for mode, other := range map[Mode]Mode{ModeNAD: ModeAux, ModeAux: ModeNAD} {
		n := newNode(t, "10-ovn-kubernetes.conf", single)
		n.Mode = mode
		before := n.tree()
		n.install()
		s := n.status()
		if !s.Ready || s.Chained != OwnFile {
			t.Errorf("%+v", s)
		}
		conf := loaded(t, s.Active)
		if conf.Network.Type != entry.Type || conf.Network.Name == "" || conf.Network.CNIVersion != "0.4.0" {
			t.Errorf("%+v", conf)
		}
		if err := os.WriteFile(s.Active, []byte(`{"type":"x"}`), 0o600); err != nil || n.status().Ready {
			t.Error("wrong contents are ready", err)
		}
		n.install()
		if !n.status().Ready || n.read("10-ovn-kubernetes.conf") != single {
			t.Error("not repaired, or what is not ours is touched")
		}
		installed := n.tree()
		n.Mode = other // and back: a file of the former mode would run the plugin forever
		n.install()
		n.Mode = mode
		if s := n.status(); s.Ready || s.Duplicates != 0 || s.Chained != NotChained {
			t.Errorf("%+v", s)
		}
		n.install()
		if n.tree() != installed || !n.status().Ready {
			t.Error(n.tree())
		}
		left := n.Config
		left.Mode = other
		leftover, _ := left.ownFiles()
		if err := os.WriteFile(leftover, []byte(`{"type": "`+entry.Type+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if s := n.status(); s.Ready || s.Duplicates != 1 || !strings.Contains(strings.Join(s.Missing, ";"),
			"left of another mode") {
			t.Errorf("%+v", s)
		}
		n.uninstall()
		if n.tree() != before {
			t.Error(n.tree())
		}
		if err := os.WriteFile(leftover, []byte(`{"type": "x"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		n.install()
		n.uninstall()
		if _, err := os.Stat(leftover); err != nil {
			t.Error("somebody else's file is gone:", err)
		}
	}
}

// The binary is installed before the configuration, is replaced if it differs, and stays unless it is purged.
func TestBinary(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	n.install()
	for _, spoil := range []func() error{
		func() error { return os.WriteFile(n.binary(), []byte("another"), 0o755) },
		func() error { return os.Chmod(n.binary(), 0o600) },
		func() error { return os.Remove(n.binary()) },
		func() error { return os.WriteFile(n.Source, []byte("a newer plugin"), 0o755) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if n.status().Ready {
			t.Error("spoilt, and still ready")
		}
		n.install()
		if s := n.status(); !s.Ready || s.Binary.SHA256 != s.Binary.Want {
			t.Errorf("%+v", s)
		}
	}
	if err := Uninstall(n.Config, false); err != nil || !executable(n.binary()) || n.read("10-net.conflist") != list {
		t.Errorf("%v\n%s", err, n.tree())
	}
	n.BinDir = n.Source // a file, so there can be no binary, and thus no configuration
	if err := Install(n.Config); err == nil || n.read("10-net.conflist") != list {
		t.Errorf("chained without a binary: %v", err)
	}
}

// Owner, mode and extended attributes of the others' files stay.
func TestMetadata(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	path := filepath.Join(n.ConfDir, "10-net.conflist")
	if err := unix.Setxattr(path, "user.label", []byte("their own\x00"), 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"security.ima", "security.evm"} { // they describe the former contents
		if err := unix.Setxattr(path, name, []byte("\x01hash of what was there"), 0); err != nil && name == "security.ima" {
			t.Fatal(err)
		}
	}
	owner := uint32(os.Getuid())
	if owner == 0 {
		owner = 4711
		if err := os.Chown(path, 4711, 4711); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	for _, act := range []func(){n.install, n.uninstall} {
		act()
		var stat unix.Stat_t
		label := make([]byte, 64)
		size, err := unix.Getxattr(path, "user.label", label)
		if err = errors.Join(err, unix.Stat(path, &stat)); err != nil {
			t.Fatal(err)
		}
		if size, err := unix.Getxattr(path, "security.ima", label[32:]); err == nil {
			t.Errorf("the hash of other contents: %q", label[32:32+size])
		}
		if stat.Uid != owner || stat.Mode&0o7777 != 0o604 || string(label[:size]) != "their own\x00" {
			t.Errorf("uid %d mode %o label %q", stat.Uid, stat.Mode, label[:size])
		}
	}
}

func TestReadsDropIns(t *testing.T) {
	for version, want := range map[string]bool{
		"": false, "containerd://": false, "containerd://1.7.28": false, "containerd://2.0.5": false,
		"containerd://2.1.0":      true,
		"containerd://2.1.0-rc.1": false, "containerd://2.1.4-k3s1": true, "containerd://2.2.0-beta.0": true,
		"containerd://3.0.0":  true,
		"containerd://v2.1.4": true, "cri-o://1.32.9": false, "cri-o://1.33.0": true, "cri-o://1.33.0-dev": true,
		"docker://28.0.0": false, "containerd://2.x.1": false,
	} {
		if readsDropIns(version) != want {
			t.Errorf("%q: %t", version, !want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	for _, c := range []Config{{Mode: "x"}, {DropIn: "x"}} {
		if err := Install(c); err == nil {
			t.Errorf("%+v", c)
		}
		if _, err := LookAt(c); err == nil {
			t.Errorf("%+v", c)
		}
	}
}

func TestTable(t *testing.T) {
	n := newNode(t, "10-net.conflist", list, "20-torn.conflist", "{")
	n.install()
	var out strings.Builder
	if err := n.status().WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	got := strings.NewReplacer(n.ConfDir, "CONF", n.BinDir, "BIN").Replace(out.String())
	want := `ready       yes
mode        chain
binary      BIN/istio-pod-network: installed and current, sha256 d8d0c4b4d5d6
directory   CONF
active      CONF/10-net.conflist
network     net
plugins     ptp
chained     spliced
duplicates  0
not used    CONF/20-torn.conflist: not valid JSON
`
	want = strings.Replace(want, "d8d0c4b4d5d6", n.status().Binary.Want[:12], 1)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// containerd reloads only when a file in confDir itself is written, renamed or removed. This must happen after the
// drop-in is in place, and after it is removed.
func TestReload(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	n.DropIn, n.Source = DropInAlways, ""
	for _, act := range []func(){n.install, n.uninstall} {
		w, err := fsnotify.NewWatcher()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(n.ConfDir); err != nil {
			t.Fatal(err)
		}
		act()
		for deadline, seen := time.After(patience), false; !seen; {
			select {
			case e := <-w.Events:
				seen = !e.Has(fsnotify.Create) && !e.Has(fsnotify.Chmod)
				seen = seen && !e.Has(fsnotify.Write) // that is the temporary file, which is too early
			case <-deadline:
				t.Fatal("containerd would not have read again")
			}
		}
		w.Close()
	}
}
