package install

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/istio-pod-network/controller/internal/entry"
)

// killAt are the system calls at which the installer is killed, each time it makes one: all that access a file. The Go
// runtime's own calls are left out, and so is close, which changes nothing.
var killAt = []string{"openat", "read", "write", "fsync", "fchmod", "fchmodat", "flock", "fcntl", "getdents64",
	"listxattr", "getxattr",
	"fgetxattr", "fsetxattr", "fchown", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir",
	"copy_file_range",
	"exit_group"}

// TestKill kills install and uninstall by SIGKILL at the n-th time they make a system call, for every n until they
// complete. At each point the runtime finds a complete network, our entry is in it only if the binary is installed, and
// a second run of the command ends like an undisturbed one, with no other files left.
func TestKill(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal(err, "; install strace")
	}
	for name, k := range map[string]*killer{
		"splice":  {dropIn: DropInNever, file: "10-net.conflist", contents: list},
		"drop-in": {dropIn: DropInAlways, file: "10-net.conflist", contents: list},
		"convert": {dropIn: DropInNever, file: "10-one.conf", contents: single},
	} {
		for _, verb := range []string{"install", "uninstall"} {
			t.Run(name+" "+verb, func(t *testing.T) {
				t.Parallel()
				k := *k
				k.verb = verb
				for _, call := range killAt {
					for n := 1; k.try(t, call, n); n++ {
						k.points++
					}
				}
				t.Logf("killed at %d points: %d times chained then, %d times not", k.points, k.in, k.out)
				if k.points < 30 || k.in == 0 || k.out == 0 {
					t.Error("no good test")
				}
			})
		}
	}
}

type killer struct {
	dropIn         DropIn
	file, contents string
	verb           string
	points         int
	in, out        int
}

// node returns a node in the state before the verb.
func (k *killer) node(t *testing.T) node {
	n := newNode(t, k.file, k.contents)
	n.DropIn = k.dropIn
	if k.verb == "uninstall" {
		n.install()
	}
	return n
}

// try kills the installer at one point. It returns false if the installer completed before that point.
func (k *killer) try(t *testing.T, call string, at int) (killed bool) {
	n := k.node(t)
	killed = n.killed(k.verb, call, at)
	s := n.status()
	if s.Active == "" {
		t.Fatalf("%s %d: no network: %s", call, at, n.tree())
	}
	k.whole(t, s, fmt.Sprintf("%s %d", call, at))
	undisturbed := k.node(t)
	if k.verb == "install" {
		n.install()
		undisturbed.install()
	} else {
		n.uninstall()
		undisturbed.uninstall()
	}
	want := strings.ReplaceAll(undisturbed.tree(), filepath.Dir(undisturbed.ConfDir), filepath.Dir(n.ConfDir))
	if got := n.tree(); got != want {
		t.Errorf("%s %d: once more:\n%s\nwant\n%s", call, at, got, want)
	}
	return killed
}

// whole loads the network as a runtime does.
func (k *killer) whole(t *testing.T, s Status, at string) {
	types := []string{}
	if strings.HasSuffix(s.Active, ".conflist") {
		l, err := libcni.NetworkConfFromFile(s.Active)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		for _, p := range l.Plugins {
			types = append(types, p.Network.Type)
		}
	} else {
		types = append(types, loaded(t, s.Active).Network.Type)
	}
	chained := strings.Contains(fmt.Sprint(types), entry.Type)
	if types[0] != "ptp" || len(types) > 2 {
		t.Errorf("%s: %q", at, types)
	}
	if chained {
		k.in++
	} else {
		k.out++
	}
	if chained && !s.Binary.Current {
		t.Errorf("%s: chained without the binary: %+v", at, s)
	}
}

// killed runs the installer under strace, and returns whether it was killed.
func (n node) killed(verb, call string, at int) bool {
	n.t.Helper()
	trace := filepath.Join(n.t.TempDir(), "trace")
	cmd := exec.Command("strace", "-f", "-o", trace, "-e", "trace="+call, fmt.Sprintf("--inject=%s:signal=KILL:when=%d",
		call, at), "/proc/self/exe")
	cmd.Args[len(cmd.Args)-1], _ = os.Executable()
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1",
		roleEnv+"="+strings.Join([]string{verb, n.ConfDir, n.BinDir, n.Source, string(n.DropIn)}, "|"))
	out, failure := cmd.CombinedOutput()
	seen, err := os.ReadFile(trace)
	if err != nil {
		n.t.Fatal(err, string(out))
	}
	killed := strings.Contains(string(seen), "+++ killed by SIGKILL +++")
	if !killed && failure != nil {
		n.t.Fatalf("not killed, and still: %v: %s", failure, out)
	}
	return killed
}
