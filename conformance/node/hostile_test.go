package node

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/plugin/record"
	"k8s.io/client-go/tools/clientcmd"
)

// stranger returns a command that connects to the socket as another user.
func stranger(socket string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), strangerEnv+"="+socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	return cmd
}

// A process that can reach the socket cannot stop the agent's work, and gets no answer.
func TestHostileSocket(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	r.ready()
	before := r.resident()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	dial := func() net.Conn {
		c, err := net.DialTimeout("unix", r.socket(), 10*time.Second)
		if err != nil {
			return nil // its queue is full, which must happen at some point
		}
		open = append(open, c)
		return c
	}
	for i := range 1000 { // silent, endless, invalid, and incomplete questions
		if c := dial(); c != nil {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			switch i % 4 {
			case 1:
				_, _ = c.Write([]byte(strings.Repeat("x", 128<<10)))
			case 2:
				_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			case 3:
				_, _ = c.Write([]byte(`{"version":1,"op":"pod"`))
			}
		}
	}
	s := r.sandbox(r.mesh("cart-0"))
	s.entry["agentTimeout"] = "1m"
	s.add(record.Redirect, "injected") // after all of them
	if after := r.resident(); after > before+64<<10 {
		t.Errorf("resident memory went from %d to %d KiB", before, after)
	} else {
		t.Logf("%d connections open; resident memory went from %d to %d KiB", len(open), before, after)
	}

	must(t, os.Chmod(r.dir, 0o755))
	must(t, os.Chmod(r.store.Dir, 0o755)) // as if somebody had opened the directory
	must(t, os.Chmod(r.socket(), 0o666))
	out, err := stranger(r.socket()).CombinedOutput()
	must(t, err)
	if !strings.Contains(string(out), "refusing the caller") || strings.Contains(string(out), "cart-0\"") {
		t.Errorf("another user is told: %s", out)
	}
}

// strangerEnv is the environment variable that makes the test binary ask the socket in it and print the answer.
const strangerEnv = "ISTIO_POD_NETWORK_STRANGER"

func ask(socket string) int {
	c, err := net.Dial("unix", socket)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	fmt.Fprintln(c, `{"version":1,"op":"pod","namespace":"shop","name":"cart-0"}`)
	line, _ := bufio.NewReader(c).ReadString('\n')
	fmt.Print(line)
	return 0
}

// resident returns the agent's resident memory in KiB.
func (r *rig) resident() int {
	r.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.agent.cmd.Process.Pid))
	must(r, err)
	var kib int
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &kib)
	}
	return kib
}

// The agent listens on the HTTP port and on its two sockets, and nowhere else. It writes no credential to the node.
func TestExposure(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	r.ready()
	r.sandbox(r.mesh("cart-0")).add(record.Redirect, "injected")
	proc := fmt.Sprintf("/proc/%d/", r.agent.cmd.Process.Pid)
	own := map[string]bool{}
	files, err := os.ReadDir(proc + "fd")
	must(t, err)
	for _, file := range files {
		target, _ := os.Readlink(proc + "fd/" + file.Name())
		if inode, found := strings.CutPrefix(target, "socket:["); found {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var listens []string
	// the columns of address, state or flags, and inode (Documentation/networking/proc_net_tcp.rst)
	for name, c := range map[string]struct {
		bound, state, inode int
		open                string
	}{
		"tcp": {1, 3, 9, "0A"}, "tcp6": {1, 3, 9, "0A"}, "udp": {1, 3, 9, "07"}, "udp6": {1, 3, 9, "07"},
		"raw": {1, 3, 9, "07"}, "raw6": {1, 3, 9, "07"}, "packet": {4, 1, 8, "3"}, "unix": {7, 3, 6, "00010000"},
	} {
		data, err := os.ReadFile(proc + "net/" + name)
		if !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6 has no such file
			must(t, err)
		}
		for line := range strings.Lines(string(data)) {
			if w := strings.Fields(line); len(w) > max(c.bound, c.inode) && w[c.state] == c.open && own[w[c.inode]] {
				listens = append(listens, name+" "+w[c.bound])
			}
		}
	}
	slices.Sort(listens)
	// the names at which the sockets were bound before they were renamed
	want := []string{"tcp 0100007F:3AF0", "unix " + r.socket() + ".inspect.new", "unix " + r.socket() + ".new"}
	if !slices.Equal(listens, want) {
		t.Errorf("the agent listens at %q, want %q", listens, want)
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.path("kubeconfig"))
	must(t, err)
	if config.BearerToken == "" {
		t.Fatal("the agent has no token")
	}
	seen := 0
	for _, dir := range []string{"bin", "net.d", "run"} {
		must(t, filepath.WalkDir(r.path(dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			seen++
			data, err := os.ReadFile(path)
			if strings.Contains(string(data), config.BearerToken) {
				t.Errorf("%s has the agent's token", path)
			}
			return err
		}))
	}
	if seen < 4 {
		t.Errorf("%d files: plugin, configuration, record and the installation's are not among them", seen)
	}
}
