package facts

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// nobody is the uid of an unprivileged user.
const nobody = 65534

// agentEnv is the environment variable that turns the test binary into an agent. Its value is the socket's path. The
// agent runs until its standard input ends.
const agentEnv = "FACTS_TEST_AGENT"

// fakeAgent answers as the real agent does, as the user that it runs as.
func fakeAgent(path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, good)
			_ = conn.Close()
		}
	}()
	_, _ = os.Stdout.WriteString("ready\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// startFakeAgent runs fakeAgent as the uid, in a directory that this user owns.
func startFakeAgent(t *testing.T, path string, uid uint32) {
	t.Helper()
	dir := filepath.Dir(path)
	for _, err := range []error{os.Mkdir(dir, 0o700), os.Chown(dir, int(uid), 0), os.Chmod(filepath.Dir(dir), 0o711)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe") // by /proc, because the other user may not be able to reach the binary's path
	cmd.Env = append(os.Environ(), agentEnv+"="+path)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	stdin, inErr := cmd.StdinPipe()
	stdout, outErr := cmd.StdoutPipe()
	if inErr != nil || outErr != nil {
		t.Fatal(inErr, outErr)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the fake agent says %q, %v", line, err)
	}
}

func TestWrongPeer(t *testing.T) {
	path := socketPath(t)
	startFakeAgent(t, path, nobody)
	_, err := Ask(within(t, time.Minute), path, question)
	wantRefused(t, err, path, "belongs to uid 65534", "must belong to root")

	// The directory now belongs to root, but the listener is still the other user's.
	if err := os.Chown(filepath.Dir(path), 0, 0); err != nil {
		t.Fatal(err)
	}
	_, err = Ask(within(t, time.Minute), path, question)
	wantRefused(t, err, path, "runs as uid 65534: only root is believed")
}

// The same agent is trusted if it runs as root: only the user makes the difference above.
func TestRightPeer(t *testing.T) {
	path := socketPath(t)
	startFakeAgent(t, path, 0)
	pod, err := Ask(within(t, time.Minute), path, question)
	wantAnswer(t, pod, err)
}

func TestDirectoryModes(t *testing.T) {
	path := socketPath(t)
	play(t, mustListen(t, path), reply(good))
	for mode, ok := range map[os.FileMode]bool{
		0o700: true, 0o711: true, 0o755: true, 0o500: true,
		0o770: false, 0o720: false, 0o702: false, 0o777: false, 0o777 | os.ModeSticky: false,
	} {
		if err := os.Chmod(filepath.Dir(path), mode); err != nil {
			t.Fatal(err)
		}
		pod, err := Ask(within(t, time.Minute), path, question)
		if ok {
			wantAnswer(t, pod, err)
		} else {
			wantRefused(t, err, path, "nobody but root may write to it")
		}
	}
}

func TestPaths(t *testing.T) {
	for socket, want := range map[string]string{
		"":                             "not absolute",
		"agent.sock":                   "not absolute",
		"@agent":                       "not absolute",
		"/" + strings.Repeat("x", 107): "has 108 bytes, a unix socket's at most 107",
		"/proc/self/exe/agent.sock":    "not a directory",
	} {
		_, err := Ask(within(t, 50*time.Millisecond), socket, question)
		wantRefused(t, err, socket, want)
		if !strings.HasPrefix(socket, "/proc") {
			if _, err := Listen(socket); err == nil || !strings.HasPrefix(err.Error(), "making socket ") {
				t.Errorf("listening on %q: %v", socket, err)
			}
		}
	}
}

// A caller that is not root gets no facts, even if it can connect.
func TestServeRefusesOthers(t *testing.T) {
	path := socketPath(t)
	var asked atomic.Bool
	l := mustListen(t, path)
	serve(t, server{func(context.Context, Request) Response {
		asked.Store(true)
		return Response{Pod: &redirect.Pod{}}
	}, patient}, l)
	for _, err := range []error{
		os.Chmod(filepath.Dir(filepath.Dir(path)), 0o711), os.Chmod(filepath.Dir(path), 0o711), os.Chmod(path, 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	conn := dialAs(t, path, nobody)
	defer conn.Close()
	line, err := readLine(conn, maxResponse)
	if err != nil || !strings.Contains(string(line), "runs as uid 65534: only root is believed") || asked.Load() {
		t.Errorf("got %s, %v, asked %v", line, err, asked.Load())
	}
}

// dialAs connects as another user. The effective uid belongs to the thread, and the kernel records it in connect(2).
func dialAs(t *testing.T, path string, uid uintptr) net.Conn {
	t.Helper()
	const unchanged = ^uintptr(0)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, unchanged, uid, unchanged); errno != 0 {
		t.Fatal(errno)
	}
	defer syscall.RawSyscall(syscall.SYS_SETRESUID, unchanged, 0, unchanged)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
