package pages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/blocks"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// byHand are the tests of this file. Each runs the block that names it.
var byHand = []string{"TestByHand", "TestNodeByHand"}

// runAsItStands runs the block of a page that names the test, in a shell with its own network and mount namespaces,
// after the commands in before. A command that fails according to the page has to fail. It returns the output.
func runAsItStands(t *testing.T, page, before string) string {
	t.Helper()
	all, _, err := blocks.Read(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if b.RunBy != t.Name() {
			continue
		}
		dir := t.TempDir()
		if err := os.Symlink(isolated.BinDir(), filepath.Join(dir, "bin")); err != nil {
			t.Fatal(err)
		}
		script := "set -euo pipefail\n" + before + blocks.Script(b)
		cmd := exec.Command("unshare", "--net", "--mount", "bash", "-c", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", b.Place, err, out)
		}
		return string(out)
	}
	t.Fatalf("%s has no block that names %s", page, t.Name())
	return ""
}

// The block about the plugin by hand gives what the page says: rules, a record, and a CHECK that names what is missing.
func TestByHand(t *testing.T) {
	out := runAsItStands(t, "docs/one-machine.md", "")
	for _, want := range []string{"table ip istio-pod-network", "table ip6 istio-pod-network", `"decision":"redirect"`,
		"the rules differ from what was written"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
}

// The block about the installer by hand chains the plugin, says so, and removes it. The node's directories are the
// shell's own.
func TestNodeByHand(t *testing.T) {
	out := runAsItStands(t, "docs/one-machine.md", `
mount -t tmpfs tmpfs /opt; mount -t tmpfs tmpfs /etc
mkdir -p /opt/cni/bin /etc/cni/net.d
cp -L bin/bridge bin/host-local /opt/cni/bin
echo '{"cniVersion": "1.0.0", "name": "demo", "plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}]}' \
	>/etc/cni/net.d/10-demo.conflist
`)
	if !strings.Contains(out, "spliced") {
		t.Errorf("not chained:\n%s", out)
	}
}
