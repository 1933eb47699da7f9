package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/install/installtest"
	"golang.org/x/sys/unix"
)

// mounted returns a node on a small file system of its own.
func mounted(t *testing.T) (n node, remount func(flags uintptr)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("only root may mount a file system that can be full or read-only")
	}
	n = newNode(t)
	if err := unix.Mount("tmpfs", n.ConfDir, "tmpfs", 0, "size=64k,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(n.ConfDir, unix.MNT_DETACH) })
	return n, func(flags uintptr) {
		if err := unix.Mount("tmpfs", n.ConfDir, "tmpfs", unix.MS_REMOUNT|flags, "size=64k,mode=755"); err != nil {
			t.Fatal(err)
		}
	}
}

// A full disk: the error names the path and says what to do, nothing is lost, and nothing is left.
func TestFullDisk(t *testing.T) {
	for name, contents := range map[string]string{"10-net.conflist": list, "10-one.conf": single} {
		for _, dropIn := range []DropIn{DropInNever, DropInAlways} {
			n, _ := mounted(t)
			n.DropIn = dropIn
			n.write(name, contents)
			filler, err := os.Create(filepath.Join(n.ConfDir, "filler"))
			if err != nil {
				t.Fatal(err)
			}
			for size := 4096; size > 0; size /= 2 {
				for err = nil; err == nil; {
					_, err = filler.Write(make([]byte, size))
				}
			}
			filler.Close()
			before := n.tree()
			n.Source = ""
			err = Install(n.Config)
			fails(t, err, n.ConfDir, "no space left on device", "free some space")
			if dropIn == DropInNever && n.tree() != before {
				t.Errorf("before %.300s\nafter %.300s", before, n.tree())
			}
			if n.read(name) != contents {
				t.Error("lost")
			}
			os.Remove(filler.Name())
			n.install()
			installtest.Chained(t, n.status().Active)
			n.uninstall()
		}
	}
}

// fails checks that the error has all words.
func fails(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, word := range words {
		if !strings.Contains(err.Error()+" remedy: "+Remedy(err), word) {
			t.Errorf("%q does not say %q; remedy: %q", err, word, Remedy(err))
		}
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	n, remount := mounted(t)
	n.write("10-net.conflist", list)
	remount(unix.MS_RDONLY)
	fails(t, Install(n.Config), n.ConfDir, "10-net.conflist", "read-only file system", "mount that directory writable")
	if n.read("10-net.conflist") != list {
		t.Error("changed")
	}
	remount(0)
	n.install()
	remount(unix.MS_RDONLY)
	fails(t, Uninstall(n.Config, true), n.ConfDir, "read-only file system")
	if !executable(n.binary()) {
		t.Error("the binary is gone, the configuration is not")
	}
}

// Another user can read the directory, but not write to it.
func TestPermissionDenied(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("only root can become another user")
	}
	n := newNode(t, "10-net.conflist", list)
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "install-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "installer")
	if err := os.WriteFile(program, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	for d := n.ConfDir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	before := n.tree()
	cmd := exec.Command(program)
	cmd.Env = []string{roleEnv + "=" + strings.Join([]string{"install", n.ConfDir, n.BinDir, n.Source, "never"}, "|")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	for _, word := range []string{n.BinDir, "permission denied", "remedy: run as root"} {
		if err == nil || !strings.Contains(string(out), word) {
			t.Errorf("%v %q does not say %q", err, out, word)
		}
	}
	if n.tree() != before {
		t.Error(n.tree())
	}
}

// Directories and files may be symbolic links. A link to a file elsewhere stays a link, and its target is edited.
func TestLinks(t *testing.T) {
	n := newNode(t)
	dir := filepath.Dir(n.ConfDir)
	for _, link := range []*string{&n.ConfDir, &n.BinDir} {
		if err := os.Symlink(*link, *link+".link"); err != nil {
			t.Fatal(err)
		}
		*link += ".link"
	}
	real := filepath.Join(dir, "elsewhere")
	if err := os.WriteFile(real, []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, filepath.Join(n.ConfDir, "10-net.conflist")); err != nil {
		t.Fatal(err)
	}
	n.install()
	installtest.Chained(t, filepath.Join(n.ConfDir, "10-net.conflist"))
	if target, err := os.Readlink(filepath.Join(n.ConfDir, "10-net.conflist")); target != real || !n.status().Ready {
		t.Errorf("%q %v %+v", target, err, n.status())
	}
	n.uninstall()
	if n.read("10-net.conflist") != list {
		t.Error("not undone")
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(n.ConfDir, "95-dangling.conflist")); err != nil {
		t.Fatal(err)
	}
	n.install()
	if s := n.status(); !s.Ready || len(s.Others) != 1 || !strings.Contains(s.Others[0].Problem, "no such file") {
		t.Errorf("%+v", s)
	}
}

// What is not a regular file does not block the installer, and is not a network.
func TestFIFO(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	if err := unix.Mkfifo(filepath.Join(n.ConfDir, "05-fifo.conflist"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.install()
	if s := n.status(); !s.Ready {
		t.Errorf("%+v", s)
	}
}

// Two installers at once do not disturb each other.
func TestTwoInstallers(t *testing.T) {
	n := newNode(t, "10-net.conflist", list)
	done := make(chan error)
	for range 8 {
		go func() { done <- Install(n.Config) }()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	installtest.Chained(t, filepath.Join(n.ConfDir, "10-net.conflist"))
	n.uninstall()
	if n.read("10-net.conflist") != list {
		t.Error("not undone")
	}
}
