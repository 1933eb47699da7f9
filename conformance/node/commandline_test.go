package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// The error for an invalid flag has its name, its value and what is valid. The help has what an operator needs.
func TestCommandLine(t *testing.T) {
	run := func(env []string, args ...string) (int, string) {
		cmd := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-agent"), args...)
		cmd.Env = env
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	entry := filepath.Join(t.TempDir(), "entry.json")
	must(t, os.WriteFile(entry, []byte(`{"type": "istio-pod-network", "selection": "all"}`), 0o600))
	refused := filepath.Join(t.TempDir(), "refused.json") // only the plugin can see that it is invalid
	must(t, os.WriteFile(refused, []byte(`{"type": "istio-pod-network", "backend": "ebpf"}`), 0o600))
	plugin := filepath.Join(isolated.BinDir(), "istio-pod-network")
	for _, c := range []struct {
		args   []string
		status int
		words  []string
	}{
		{[]string{"--node-name=n", "--source=" + plugin, "--network-config=" + refused}, 2,
			[]string{"--network-config", "backend", `"ebpf"`, "auto, nftables"}},
		{[]string{"--node-name=n", "--source=" + plugin, "--network-config=" + refused, "--no-install"}, 1,
			[]string{"reading the credentials"}},
		{nil, 2, []string{"--node-name", "the name of this node's object"}},
		{[]string{"--node-name=n", "--log-format=xml"}, 2, []string{"--log-format", `"xml"`, "text or json"}},
		{[]string{"--node-name=n", "--listen=x"}, 2, []string{"--listen", `"x"`, ":15088"}},
		{[]string{"--node-name=n", "--patrol=0s"}, 2, []string{"--patrol", `"0s"`, "more than 0"}},
		{[]string{"--node-name=n", "--mode=x"}, 2, []string{`--mode: invalid value "x"`, "chain, nad or aux"}},
		{[]string{"--node-name=n", "--network-config=" + entry}, 2, []string{"--network-config", "selection", `"all"`,
			"injected or annotated"}},
		{[]string{"--node-name=n", "--network-config=/none"}, 2, []string{"/none"}},
		{[]string{"--node-name=n", "now"}, 2, []string{`unexpected argument "now"`}},
		{[]string{"--node-name=n"}, 1, []string{"reading the credentials", "--kubeconfig"}},
		{[]string{"--node-name=n", "--uninstall", "--no-install"}, 2,
			[]string{"--uninstall and --no-install exclude each other"}},
		{[]string{"--nonsense"}, 2, []string{"nonsense"}},
		{[]string{"uninstall-all"}, 2, []string{"uninstall-all", "--namespace"}},
		{[]string{"uninstall-all", "--namespace=n", "--timeout=0s"}, 2, []string{"--timeout", `"0s"`, "more than 0"}},
		{[]string{"uninstall-all", "--namespace=n", "now"}, 2, []string{`unexpected argument "now"`}},
		{[]string{"uninstall-all", "--help"}, 0, []string{"AGENT_DAEMONSET", "-timeout", "Exit status"}},
		{[]string{"--version"}, 0, []string{"istio-pod-network-agent"}},
		{[]string{"--help"}, 0, []string{"AGENT_NODE_NAME", "-stuck-after", "/readyz", "uninstall-all", "Exit status"}},
	} {
		status, out := run(nil, c.args...)
		for deadline := time.Now().Add(patience); status != c.status && strings.Contains(out, "reading the credentials") &&
			time.Now().Before(deadline); { // a plugin that has answered late has not refused anything
			status, out = run(nil, c.args...)
		}
		if status != c.status {
			t.Errorf("%q: status %d, want %d", c.args, status, c.status)
		}
		for _, word := range c.words {
			if !strings.Contains(out, word) {
				t.Errorf("%q does not say %q:\n%s", c.args, word, out)
			}
		}
		if c.status == 2 && strings.Count(out, "\n") > 1 {
			t.Errorf("%q takes more than a line to say what is wrong:\n%s", c.args, out)
		}
	}
	if status, out := run([]string{"AGENT_NODE_NAME=n", "AGENT_API_BURST=many"}); status != 2 ||
		!strings.Contains(out, `AGENT_API_BURST: invalid value "many"`) {
		t.Errorf("status %d: %s", status, out)
	}
}
