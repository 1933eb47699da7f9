package facts

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestListen(t *testing.T) {
	path := socketPath(t)
	dir := filepath.Dir(path)
	first := mustListen(t, path)
	wantMode(t, dir, os.ModeDir|0o700)
	wantMode(t, path, os.ModeSocket|0o600)

	second := mustListen(t, path) // while the first one still listens
	_ = first.Close()             // this must not remove the second one's socket
	play(t, second, reply(good))
	pod, err := Ask(within(t, time.Minute), path, question)
	wantAnswer(t, pod, err)

	_ = second.Close()
	third := mustListen(t, path) // replaces a stale socket
	play(t, third, reply(good))
	pod, err = Ask(within(t, time.Minute), path, question)
	wantAnswer(t, pod, err)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func wantMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	if info, err := os.Lstat(path); err != nil || info.Mode() != want {
		t.Errorf("%s: %v, %v, want %v", path, info, err, want)
	}
}

// The kubelet creates hostPath directories with mode 0755, and a killed agent may leave its temporary socket.
func TestListenTightensItsDirectory(t *testing.T) {
	for _, mode := range []os.FileMode{0o755, 0o777, 0o500} {
		path := socketPath(t)
		dir := filepath.Dir(path)
		for _, err := range []error{os.MkdirAll(dir, 0o700), os.Mkdir(dir+"/pods", 0o700),
			os.WriteFile(dir+"/status", nil, 0o600), os.Chmod(dir, mode)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if l, err := net.Listen("unix", path+".new"); err != nil {
			t.Fatal(err)
		} else {
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = l.Close()
		}
		mustListen(t, path, "pods", "status")
		wantMode(t, dir, os.ModeDir|0o700)
	}
}

func TestListenLeavesOthersAlone(t *testing.T) {
	path := socketPath(t)
	dir := filepath.Dir(path)
	for _, err := range []error{
		os.MkdirAll(dir, 0o700), os.WriteFile(dir+"/utmp", nil, 0o644), os.Chmod(dir, 0o755), os.WriteFile(path, nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := Listen(path)
	wantText(t, err, path, "is no socket")
	wantMode(t, path, 0o600)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustListen(t, path) // its mode stays, because it contains other files, but only root can write to it
	wantMode(t, dir, os.ModeDir|0o755)

	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err = Listen(path)
	wantText(t, err, path, "nobody but root may write to it")
	wantMode(t, dir, os.ModeDir|0o777)
	if err := os.Chown(dir, nobody, 0); err != nil {
		t.Fatal(err)
	}
	_, err = Listen(path)
	wantText(t, err, path, "belongs to uid 65534")
}
