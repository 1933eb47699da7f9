package wait

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
)

// TestAnnotation runs the program in a pod without rules, as several users.
func TestAnnotation(t *testing.T) {
	lab, n := pod(t, testnet.Options{})
	_, elsewhere := pod(t, testnet.Options{})
	own := identity(t, n)
	noProxy := marked("not-required", own, line(annotation.Reason, "opted-in-no-proxy"))
	initialized, says, pasted, another := exitReady, "for this network namespace", "may be pasted or stale",
		"another network namespace"
	if !own.HasCookie() { // without a cookie no mark proves anything
		initialized, says, pasted, another = exitNotReady, "--mode probe", "--mode probe", "--mode probe"
	}
	for _, user := range []int{proxy, someone} {
		for _, c := range []struct {
			name  string
			lines []string
			code  int
			says  string
		}{
			{"own", marked("initialized", own), initialized, says},
			{"pasted", []string{line(statusKey, "initialized")}, exitNotReady, pasted},
			{"of another", marked("initialized", identity(t, elsewhere)), exitNotReady, another},
			{"not required", marked("not-required", own, line(annotation.Reason, "mode-none")), exitReady,
				`"mode-none"`},
			{"not required, of another", marked("not-required", identity(t, elsewhere)), exitNotReady,
				"another network namespace"},
			{"no proxy", noProxy, exitNotReady, "no proxy container"},
		} {
			v := newVolume(t, c.lines...)
			for _, mode := range []string{"any", "annotation"} {
				t.Run(fmt.Sprint(user, c.name, mode), func(t *testing.T) {
					t.Parallel()
					runIn(t, lab.Path, user, "init", "--mode", mode, "--file", v.file(), "--timeout", "1", "--delay", "1").expect(t,
						c.code, c.says)
				})
			}
		}
	}
}

// TestInodeReuse creates network namespaces until one has the inode number of an earlier one. The earlier one's mark
// must not count.
func TestInodeReuse(t *testing.T) {
	t.Parallel()
	seen := map[record.NetNS]record.NetNS{} // by the identity without the cookie
	for range 2000 {
		path, id, end := newNetNS(t)
		inode := id.WithoutCookie()
		old, again := seen[inode]
		seen[inode] = id
		if !again {
			end()
			continue
		}
		if old == id {
			t.Fatalf("two network namespaces are both %q", id)
		}
		v := newVolume(t, marked("initialized", old)...)
		runIn(t, path, someone, "--mode=any", "--timeout=2", "--file="+v.file()).expect(t, exitNotReady,
			"another network namespace", string(old), string(id))
		runIn(t, path, someone, "--mode=annotation", "--timeout=2", "--file="+v.file()).expect(t, exitNotReady,
			"another network namespace")
		v.set(marked("initialized", id)...)
		runIn(t, path, someone, "--mode=annotation", "--file="+v.file()).expect(t, exitReady)
		end()
		return
	}
	t.Fatal("no inode number came again")
}

// newNetNS creates a network namespace. end removes it.
func newNetNS(t *testing.T) (path string, id record.NetNS, end func()) {
	t.Helper()
	child := exec.Command("cat")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	stdin, err := child.StdinPipe()
	await.Must(t, err)
	await.Must(t, child.Start())
	path = fmt.Sprintf("/proc/%d/ns/net", child.Process.Pid)
	n, err := netfilter.Open(path)
	await.Must(t, err)
	defer n.Close()
	return path, identity(t, n), func() { stdin.Close(); _ = child.Wait() }
}

// TestInotify changes the volume while the program would read it again only after an hour.
func TestInotify(t *testing.T) { swapped(t, "--poll=1h", watchDir) }

// TestPolling changes the volume in a place where inotify reports nothing.
func TestPolling(t *testing.T) {
	swapped(t, "--poll=20ms", func(string) (<-chan struct{}, func(), error) { return nil, nil, os.ErrPermission })
	swapped(t, "--poll=20ms", func(string) (<-chan struct{}, func(), error) { return nil, func() {}, nil })
}

// said is the output of a program. It calls waits as soon as the program prints that it waits.
type said struct {
	strings.Builder
	waits func()
}

func (s *said) Write(text []byte) (int, error) {
	if bytes.Contains(text, []byte("waiting for")) {
		s.waits()
	}
	return s.Builder.Write(text)
}

func swapped(t *testing.T, poll string, watch watcher) {
	t.Helper()
	own, err := record.CurrentNetNS()
	await.Must(t, err)
	v := newVolume(t, empty...)
	v.prepare(marked("initialized", own)...) // prepared before, so that the change itself is a single rename
	looked := make(chan struct{})
	says := said{waits: sync.OnceFunc(func() { close(looked) })}
	p := process{Program: testProgram(io.Discard, &says), self: record.CurrentNetNS, watch: watch,
		args: []string{"--mode=annotation", "--timeout=60", "--termination-log=", "--file=" + v.file(), poll}}
	result := make(chan int)
	go func() { result <- p.run() }()
	<-looked
	v.swap()
	if code := <-result; code != exitReady {
		t.Errorf("exit code %d: %s", code, says.String())
	}
}

func TestWatchDirFails(t *testing.T) {
	if _, _, err := watchDir("/nonexistent"); err == nil {
		t.Error("no error")
	}
}
