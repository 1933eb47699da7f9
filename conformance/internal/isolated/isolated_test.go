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

// kinds are the namespaces that the node does not share with the machine.
var kinds = []string{"ipc", "mnt", "net", "pid", "uts"}

// endsEnv is the environment variable that says how a program in the namespaces ends: "exit" or "kill".
const endsEnv = "ISTIO_POD_NETWORK_ISOLATED_ENDS"

// ending is a program that ends as endsEnv says.
type ending string

// Run exits with status 7 or kills itself.
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

// TestApart checks that the node shares no namespace with the machine. Only then does it change the host name, because
// that would change the machine's if the UTS namespace were shared.
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

// TestOrphans checks that an orphan does not stay a zombie.
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

// TestStatus checks that Main returns the program's exit status, and says so if a signal has ended the program.
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
