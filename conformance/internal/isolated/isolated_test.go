package isolated

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// kinds are the namespaces that a node has of its own.
var kinds = []string{"ipc", "mnt", "net", "pid", "uts"}

func TestMain(m *testing.M) {
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
