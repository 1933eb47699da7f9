package cni

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCnitool runs the life of a mesh pod with the README's commands.
func TestCnitool(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) { testCnitool(t, version) })
	}
}

func testCnitool(t *testing.T, version string) {
	n := newNode(t)
	confDir := filepath.Join(n.dir, "net.d")
	if err := os.Mkdir(confDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(confDir, "10-pods.conflist"), n.conflist(version, "pods", "bridge", nil),
		0o644); err != nil {
		t.Fatal(err)
	}
	netns := n.newNetns()
	tool := func(verb string) []byte { return n.cnitool(t, confDir, verb, "pods", netns) }

	var result struct {
		CNIVersion string
		Interfaces []struct{ Name, Sandbox string }
	}
	if err := json.Unmarshal(tool("add"), &result); err != nil || result.CNIVersion != version {
		t.Fatalf("cnitool add: result %+v, %v, want version %s", result, err, version)
	}
	if version < "0.3.0" { // the first version with interfaces in results
		if len(result.Interfaces) > 0 {
			t.Errorf("interfaces %+v in a result of %s", result.Interfaces, version)
		}
	} else if last := result.Interfaces[len(result.Interfaces)-1]; last.Name != "eth0" || last.Sandbox != netns {
		t.Errorf("last interface is %+v, want eth0 in %s", last, netns)
	}
	n.wantRules(netns)
	if version >= "0.4.0" {
		tool("check")
	}
	tool("status") // libcni does not call STATUS before 1.1.0
	tool("del")
	n.wantUntouched(netns)
	tool("del")
	tool("add")
	tool("gc") // cnitool passes no valid attachments, so GC removes all
	if got := n.records(); len(got) != 0 {
		t.Errorf("records of %q after gc, want none", got)
	}
}

// cnitool runs the real cnitool and returns its stdout. It fails the test if cnitool fails.
func (n *node) cnitool(t *testing.T, confDir string, args ...string) []byte {
	t.Helper()
	cmd := n.cnitoolCommand(confDir, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cnitool %s: %v: %s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return out
}

// cnitoolCommand returns the command of cnitool for a mesh pod.
func (n *node) cnitoolCommand(confDir string, args ...string) *exec.Cmd {
	n.Helper()
	capArgs, err := json.Marshal(object{capability: mesh})
	if err != nil {
		n.Fatal(err)
	}
	var pairs []string
	for _, pair := range podArgs("0123456789abcdef") {
		pairs = append(pairs, pair[0]+"="+pair[1])
	}
	cmd := exec.Command(filepath.Join(n.bin, "cnitool"), args...)
	cmd.Env = []string{"CNI_PATH=" + n.bin, "NETCONFPATH=" + confDir, "PATH=" + os.Getenv("PATH"),
		"CAP_ARGS=" + string(capArgs), "CNI_ARGS=" + strings.Join(pairs, ";")}
	return cmd
}
