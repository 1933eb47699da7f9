package isolated

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"golang.org/x/sys/unix"
)

// kinds are the namespaces that a node has of its own.
var kinds = []string{"ipc", "mnt", "net", "pid", "uts"}

// endsEnv says how a program on a node of its own ends.
const endsEnv = "ISTIO_POD_NETWORK_ISOLATED_ENDS"

// ending ends as it is told.
type ending string

// Run does.
func (e ending) Run() int {
	if e == "kill" {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	return 7
}

func TestMain(m *testing.M) {
	if how := os.Getenv(endsEnv); how != "" {
		os.Exit(Main(ending(how), func(string) error { return nil }))
	}
	os.Exit(Main(m, func(bin string) error {
		for _, kind := range kinds {
			link, err := os.Readlink("/proc/self/ns/" + kind)
			if err == nil {
				err = os.WriteFile(filepath.Join(bin, kind), []byte(link), 0o600)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// TestApart looks whether the node shares a namespace with the machine. Its host name is changed here: a test of the
// machine's would be too late.
func TestApart(t *testing.T) {
	shared := false
	for _, kind := range kinds {
		machine, err := os.ReadFile(filepath.Join(BinDir(), kind))
		if err != nil {
			t.Fatal(err)
		}
		node, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil || node == string(machine) {
			shared = true
			t.Errorf("%s is the machine's, %s; %v", kind, machine, err)
		}
	}
	if shared {
		return
	}
	if err := unix.Sethostname([]byte("node-of-a-test")); err != nil {
		t.Error(err)
	}
}

// TestOrphans looks whether a process that has lost its parent is waited for when it ends.
func TestOrphans(t *testing.T) {
	out, err := exec.Command("sh", "-c", "sleep 0.1 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(out))
	await.Eventually(t, time.Minute, "no zombie is left", func() bool {
		_, err := os.Stat("/proc/" + pid)
		return errors.Is(err, os.ErrNotExist)
	})
}

// TestStatus hands on the exit status of the program on the node, and says so if a signal has ended it.
func TestStatus(t *testing.T) {
	for how, want := range map[string]int{"exit": 7, "kill": 1} {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestStatus$")
		cmd.Env = append(os.Environ(), endsEnv+"="+how, binDirEnv+"=")
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want || strings.Contains(string(out), "ended by") != (how == "kill") {
			t.Errorf("%s: status %d, %s", how, got, out)
		}
	}
}
