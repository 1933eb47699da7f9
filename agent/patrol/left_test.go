package patrol

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
)

// A process that the plugin has left, and that has its output open, does not block the agent. The plugin's own result
// counts.
func TestLeftProcess(t *testing.T) {
	for name, c := range map[string]struct{ ends, want string }{
		"succeeds": {"exit 0", ""},
		"refuses":  {`echo '{"code": 105, "msg": "a rule is missing"}'; exit 1`, "a rule is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, dir := repairing(t, Apply, "sleep 600 & echo $! >"+filepath.Join("$(dirname $0)", "left")+"\n"+c.ends)
			done := make(chan error, 1)
			go func() { done <- r.run(t.Context(), "CHECK", r.Plugin, sandbox{containerID: "1"}, "/x") }()
			var err error
			select {
			case err = <-done:
			case <-time.After(time.Minute):
				err = errors.New("the agent waits for it")
			}
			left, failed := os.ReadFile(filepath.Join(dir, "bin", "left"))
			await.Must(t, failed)
			var pid int
			_, failed = fmt.Sscan(string(left), &pid)
			await.Must(t, failed)
			if failed := syscall.Kill(pid, syscall.SIGKILL); failed != nil {
				t.Errorf("the process was not left: %v", failed)
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("the call ends with %v, want %q", err, c.want)
			}
		})
	}
}

// The plugin gets a memory limit.
func TestPluginMemory(t *testing.T) {
	r, _, _ := repairing(t, Apply, `echo "$GOMEMLIMIT" >&2; exit 1`)
	err := r.run(t.Context(), "CHECK", r.Plugin, sandbox{containerID: "1"}, "/x")
	if err == nil || !strings.HasSuffix(err.Error(), ": "+strings.TrimPrefix(pluginMemory, "GOMEMLIMIT=")) {
		t.Error(err)
	}
}
