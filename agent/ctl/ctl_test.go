package ctl

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ran runs the program, and returns its exit status and output.
func ran(args ...string) (status int, stdout, stderr string) {
	var out, errors bytes.Buffer
	p := process{args, strings.NewReader(""), &out, &errors, func(string) string { return "" }}
	status = p.run()
	return status, out.String(), errors.String()
}

func TestStatus(t *testing.T) {
	const pod = "explain/testdata/injected.yaml"
	for _, test := range []struct {
		args           string
		status         int
		stdout, stderr string
	}{
		{"", 0, "Available Commands:", ""},
		{"--version", 0, "istio-pod-networkctl (devel)\n", ""},
		{"--help", 0, "Available Commands:", ""},
		{"help explain", 0, "Examples:\n", ""},
		{"explain --help", 0, "Examples:\n", ""},
		{"explain -f " + pod, 0, "redirected (injected)", ""},
		{"explain -f explain/testdata/kinds.yaml", 1, "refused", ""},
		{"trace -f " + pod + " --to 10.96.0.10:80", 0, "nat-istio-output, rule 7: a group that is left out", ""},
		{"trace -f " + pod, 2, "", "istio-pod-networkctl: --to"},
		{"__complete trace --from o", 0, "app\nproxy\noutside\n", ""},
		{"status --kubeconfig testdata/none", 2, "", "reading how to reach the cluster"},
		{"status --watch --wait", 2, "", "--watch and --wait exclude each other"},
		{"status --wait --timeout 0s", 2, "", "--timeout: invalid value \"0s\""},
		{"status --timeout 1s", 2, "", "--timeout is for --wait alone"},
		{"status --watch --timeout 1s", 2, "", "--timeout is for --wait alone"},
		{"check --timeout 5m", 2, "", "--timeout is for check --pre --probe-nodes alone"},
		{"explain -f " + pod + " --agents-namespace x", 2, "", "--agents-namespace has no effect: with -f no cluster"},
		{"explain -f - -f -", 2, "", "--filename: invalid value \"-\": standard input can be read only once"},
		{"verify --cleanup --parallel 3", 2, "", "--parallel has no effect: with --cleanup the namespace"},
		{"verify --cleanup -n x", 2, "", "--namespace has no effect: with --cleanup the namespace"},
		{"check --cleanup --pre", 2, "", "--pre has no effect: with --cleanup the namespace"},
		{"check --cleanup --probe-nodes", 2, "", "--probe-nodes has no effect: with --cleanup"},
		{"check --cleanup -n x", 2, "", "--namespace has no effect: with --cleanup the namespace"},
		{"check --cleanup --nodes 1", 2, "", "--nodes is for check --pre --probe-nodes alone"},
		{"check --cleanup --timeout 1s --kubeconfig testdata/none", 2, "", "reading how to reach the cluster"},
		{"sysdump --list --output x.tar.gz", 2, "", "--output has no effect: with --list no archive is written"},
		{"explain -f " + pod + " --context x", 2, "", "--context has no effect: with -f no cluster is asked"},
		{"explain -f " + pod + " --as=", 2, "", "--as has no effect: with -f no cluster is asked"},
		{"trace --to pod:80 -f " + pod + " -s x", 2, "", "--server has no effect: with -f no cluster is asked"},
		{"version --client --kubeconfig x", 2, "", "--kubeconfig has no effect: with --client no cluster is asked"},
		{"version --client -n x", 2, "", "--namespace has no effect: with --client no cluster is asked"},
		{"completion bash --token x", 2, "", "--token has no effect: completion asks no cluster"},
		{"help explain --cluster x", 2, "", "--cluster has no effect: help asks no cluster"},
		{"help explain -n x", 2, "", "--namespace has no effect: help asks no cluster"},
		{"version --client", 0, "This tool is of (devel).\n", ""},
		{"version --kubeconfig testdata/none", 2, "", "reading how to reach the cluster"},
		{"check --kubeconfig testdata/none", 2, "", "reading how to reach the cluster"},
		{"check -o xml", 2, "", "--output"},
		{"verify --kubeconfig testdata/none", 2, "", "reading how to reach the cluster"},
		{"status --watch=maybe", 2, "", "istio-pod-networkctl: --watch: invalid value \"maybe\"; valid: true or false; see"},
		{"verify --parallel x", 2, "", "--parallel: invalid value \"x\"; valid: a whole number"},
		{"verify --timeout 5", 2, "", "--timeout: invalid value \"5\"; valid: a duration, such as 5m"},
		{"sysdump --nodes a\"b", 2, "", "--nodes: invalid value \"a\\\"b\"; valid: values with a comma between"},
		{"verify --parallel 0", 2, "", "--parallel: invalid value \"0\""},
		{"verify --nodes 0", 2, "", "--nodes: invalid value \"0\""},
		{"verify --timeout 0s", 2, "", "--timeout"},
		{"verify --junit check", 2, "", "--junit: invalid value \"check\": it is a directory; valid: a file"},
		{"verify --junit none/verify.xml", 2, "", "its directory is not there"},
		{"verify --cleanup --nodes 1", 2, "", "--nodes has no effect: with --cleanup the namespace"},
		{"explian", 2, "",
			`istio-pod-networkctl: unknown command "explian" for "istio-pod-networkctl"; did you mean explain?; see --help`},
		{"explain --no", 2, "", "istio-pod-networkctl: unknown flag: --no; see --help\n"},
		{"explain", 2, "", "istio-pod-networkctl: there is no pod to look at; valid: names of pods, -f FILE"},
		{"explain cart-0 --kubeconfig testdata/none", 2, "", "reading how to reach the cluster"},
		{"__complete explain --kubeconfig testdata/none car", 0, ":1\n", ""},
		{"explain shop/cart/0", 2, "", "POD: invalid value"},
		{"explain shop/Cart_0", 2, "", "POD: invalid value \"shop/Cart_0\": no name of a pod; valid: NAME, or NAMESPACE"},
		{"trace Shop/cart-0 --to 10.96.0.10:80", 2, "", "POD: invalid value \"Shop/cart-0\": no name of a namespace; valid"},
		{"explain -n Bad_Name -f " + pod, 2, "",
			"--namespace: invalid value \"Bad_Name\": no name of a namespace; valid: 1 to 63 characters"},
		{"explain --namespace= -f " + pod, 0, "redirected (injected)", ""},
		{"trace -n Bad_Name --to 10.96.0.10:80 -f " + pod, 2, "", "--namespace: invalid value \"Bad_Name\""},
		{"explain --agents-namespace a.b cart-0", 2, "", "--agents-namespace: invalid value \"a.b\""},
		{"status -n Bad_Name", 2, "", "--namespace: invalid value \"Bad_Name\""},
		{"sysdump -n Bad_Name", 2, "", "--namespace: invalid value \"Bad_Name\""},
		{"sysdump --list --nodes Node_1", 2, "", "--nodes: invalid value \"Node_1\": no name of a node; valid: 1 to 253"},
		{"sysdump --list --pod shop/Cart_0", 2, "", "--pod: invalid value \"shop/Cart_0\": no name of a pod"},
		{"verify --nodes node-a,Node_1", 2, "", "--nodes: invalid value \"Node_1\": no name of a node"},
		{"verify --nodes node-a,", 2, "", "--nodes: invalid value \"\": no name of a node"},
		{"completion bash", 0, "bash completion", ""},
		{"completion zsh", 0, "#compdef", ""},
		{"completion fish --no-descriptions", 0, "__completeNoDesc", ""},
		{"completion powershell", 0, "Register-ArgumentCompleter", ""},
		{"completion --help", 0, "completion powershell | Out-String", ""},
		{"completion", 2, "", "SHELL is missing; valid: bash, fish, powershell, zsh"},
		{"completion bash zsh", 2, "", "SHELL: invalid value \"bash zsh\": more than one"},
		{"__complete completion z", 0, "zsh\n", ""},
		{"help", 0, "Available Commands:", ""},
		{"help explian", 2, "", "COMMAND: invalid value \"explian\": unknown command"},
		{"__complete help st", 0, "status\n", ""},
		{"completion tcsh", 2, "", `SHELL: invalid value "tcsh": unknown shell; valid: bash, fish, powershell, zsh`},
		{"trace -f " + pod + " --to 10.96.0.10:99999", 2, "", `"10.96.0.10:99999": not a port number; valid`},
		{"__complete explain -o y", 0, "json\nyaml\n", ""},
	} {
		status, stdout, stderr := ran(append([]string{"/usr/bin/istio-pod-networkctl"}, strings.Fields(test.args)...)...)
		if status != test.status || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) ||
			strings.Count(stderr, "\n") > 1 && !strings.HasPrefix(test.args, "__") {
			t.Errorf("%q: status %d, %q, %q", test.args, status, stdout, stderr)
		}
	}
}

// full is a writer to a full disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// A failed write is an error, whichever part of the program writes.
func TestFull(t *testing.T) {
	const pod = "explain/testdata/injected.yaml"
	for _, args := range []string{"", "--help", "help", "help explain", "explain --help", "--version", "version --client",
		"completion bash", "completion zsh", "completion fish", "completion powershell", "explain -f " + pod,
		"trace -o json --to pod:80 -f " + pod, "explain --picture=svg -f " + pod} {
		var errors bytes.Buffer
		p := process{append([]string{own}, strings.Fields(args)...), strings.NewReader(""), full{}, &errors,
			func(string) string { return "" }}
		if status := p.run(); status != 3 || errors.String() != own+": no space left on device\n" {
			t.Errorf("%q: %d, %q", args, status, errors.String())
		}
	}
}

// Without a kubeconfig, the error says that, and does not name an address that nobody configured.
func TestNoCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "absent"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "") // in a pod this variable is set
	for _, args := range []string{"explain cart-0", "trace cart-0 --to pod:80", "status", "sysdump --list"} {
		status, stdout, stderr := ran(append([]string{own}, strings.Fields(args)...)...)
		if status != 3 || stdout != "" || !strings.HasPrefix(stderr, own+": no kubeconfig names a cluster: set KUBECONFIG") {
			t.Errorf("%q: %d, %q, %q", args, status, stdout, stderr)
		}
	}
	if status, _, stderr := ran(own, "status", "--server", "http://127.0.0.1:1"); status != 3 ||
		!strings.Contains(stderr, "127.0.0.1:1") {
		t.Errorf("with a server: %d, %q", status, stderr)
	}
}

// Wrong flags and wrong files are reported before a cluster is asked.
func TestMisusedFirst(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "absent"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	const probe = "check --pre --probe-nodes --yes "
	for args, says := range map[string]string{
		probe + "--values /none":                                              "--values /none: open /none: no such file",
		probe + "--values ctl_test.go":                                        "--values ctl_test.go: ",
		probe + "--set agent.port=1":                                          "KEY=VALUE with one of the keys",
		probe + "--set kubernetesDistribution=x":                              "kubernetesDistribution: invalid value \"x\"",
		probe + "--set image.digest=1":                                        "image.digest: invalid value",
		"explain cart-0 --config /none":                                       "--config: invalid value \"/none\"",
		"explain cart-0 --config explain/testdata/kinds.yaml":                 "explain/testdata/kinds.yaml: ",
		"explain cart-0 cart-1 --picture=svg":                                 "a drawing shows one",
		"trace cart-0 --to pod:80 --config /none":                             "--config: invalid value \"/none\"",
		"trace cart-0":                                                        "--to: invalid value \"\": no port",
		"trace cart-0 --to pod:80 --from me":                                  "unknown sender",
		"trace cart-0 --to pod:80 --proto icmp":                               "unknown protocol",
		"trace cart-0 --to pod:80 --backend auto":                             "unknown backend",
		"trace cart-0 --to pod:80 --backend iptables --live":                  "nftables, with --live",
		"trace cart-0 --to pod:80 -o xml":                                     "unknown format",
		"trace cart-0 --to pod:80 --picture -o json":                          "a picture has no such format",
		"trace cart-0 --to pod:80 --pod-address cart":                         "not an address",
		"trace cart-0 --to [fd00::1]:80 --pod-address 10.1.2.3":               "the pod has no address of that family",
		"trace cart-0 --to 10.1.2.4:80 --pod-address 10.1.2.3 --from outside": "a packet from outside goes to the pod",
		"trace cart-0 cart-1 --to pod:80 --picture=svg":                       "a drawing shows one",
		"sysdump --output /proc/none.tar.gz":                                  "valid: a file that can be written",
		"sysdump --output none/dump.tar.gz":                                   "its directory is not there",
		"verify --junit /proc/none.xml":                                       "valid: a file that can be written",
	} {
		status, stdout, stderr := ran(append([]string{own}, strings.Fields(args)...)...)
		if status != 2 || stdout != "" || !strings.Contains(stderr, says) {
			t.Errorf("%q: %d, %q, %q", args, status, stdout, stderr)
		}
	}
}

// A wrong value for the cluster on the command line is misuse, and reported once. One in the kubeconfig is not misuse.
func TestWrongCluster(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	write := func(server string) {
		text := `{"clusters": [{"name": "a", "cluster": {"server": "` + server + `"}}], "contexts": [{"name": "a", ` +
			`"context": {"cluster": "a"}}], "current-context": "a"}`
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KUBECONFIG", file)
	for _, test := range []struct {
		server, args, says string
		status             int
	}{
		{"http://127.0.0.1:1", "--request-timeout foo", `--request-timeout: invalid value "foo"`, 2},
		{"http://127.0.0.1:1", "--context nope", "nope", 2},
		{"http://127.0.0.1:1", "--server ::::", "::::", 2},
		{"http://127.0.0.1:1", "--certificate-authority /none --server https://127.0.0.1:1", "/none", 2},
		{"http://127.0.0.1:1", "--kubeconfig /none", "/none", 2},
		{"::::", "--kubeconfig " + file, "::::", 2},
		{"::::", "", "::::", 3},
		{"::::", "--request-timeout 5s", "::::", 3},
		{"http://127.0.0.1:1", "", "127.0.0.1:1", 3},
	} {
		write(test.server)
		for _, command := range []string{"status", "explain shop/cart-0"} {
			status, stdout, stderr := ran(append([]string{own}, strings.Fields(command+" "+test.args)...)...)
			if status != test.status || !strings.Contains(stdout+stderr, test.says) ||
				strings.Count(stderr, "reading how") > 1 || test.says == "::::" && strings.Count(stderr, "::::") > 2 {
				t.Errorf("%s %s: %d, %q, %q", command, test.args, status, stdout, stderr)
			}
		}
	}
}

// kubectl runs the program under another name, which its user does not write, and asks for completions under a third
// one.
func TestByKubectl(t *testing.T) {
	_, stdout, _ := ran("/usr/bin/kubectl-istio_pod_network", "explain", "--help")
	if !strings.Contains(stdout, "kubectl istio-pod-network explain {POD... | -f FILE} [flags]\n") ||
		strings.Contains(stdout, own) {
		t.Errorf("%s", stdout)
	}
	if status, stdout, _ := ran("kubectl-istio_pod_network.exe", "--version"); status != 0 ||
		stdout != "kubectl istio-pod-network (devel)\n" {
		t.Errorf("%d, %q", status, stdout)
	}
	if _, stdout, _ := ran("kubectl_complete-istio_pod_network", "exp"); !strings.HasPrefix(stdout, "explain\t") {
		t.Errorf("%q", stdout)
	}
}

// docs/commands.md is made from the program's help: go test ./agent/ctl -update.
func TestReference(t *testing.T) {
	var page strings.Builder
	page.WriteString("# Commands\n\n<!-- no block of this page on the cluster: the names in examples are the reader's; " +
		"TestOperatorsTool and TestVerify call each command there -->\n\n" +
		"What `--help` says of each command of [the operator's tool](ctl.md).\n")
	each(process{}.command(own), func(c *cobra.Command) { page.WriteString(described(c)) })
	golden.Compare(t, filepath.Join("..", "..", "docs", "commands.md"), page.String())
}

// each calls look with a command and all its subcommands.
func each(c *cobra.Command, look func(*cobra.Command)) {
	look(c)
	for _, below := range c.Commands() {
		each(below, look)
	}
}

func described(c *cobra.Command) string {
	var text strings.Builder
	fmt.Fprintf(&text, "\n## %s\n\n%s\n\n```\n%s\n```\n", c.CommandPath(), c.Long, c.UseLine())
	if c.Example != "" {
		examples := strings.ReplaceAll(strings.TrimPrefix(c.Example, "  "), "\n  ", "\n")
		text.WriteString("\nExamples:\n\n")
		if strings.Contains(examples, "| jq ") {
			text.WriteString("<!-- stand-ins for jq: not every machine has it -->\n")
		}
		shell := "sh"
		if c.Name() == "completion" {
			shell = "" // examples for several shells, each with the path of its scripts
		}
		fmt.Fprintf(&text, "```%s\n%s\n```\n", shell, examples)
	}
	var rows []string
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		name, usage := pflag.UnquoteUsage(f)
		short := ""
		if f.Shorthand != "" {
			short = "`-" + f.Shorthand + "`, "
		}
		if !strings.Contains(usage, "(default") && !slices.Contains([]string{"", "false", "0", "[]"}, f.DefValue) {
			usage += " (default `" + f.DefValue + "`)"
		}
		rows = append(rows, fmt.Sprintf("| %s | %s |\n", strings.TrimSpace(short+"`--"+f.Name+"` "+name), usage))
	})
	if len(rows) > 0 {
		text.WriteString("\n| flag | meaning |\n|---|---|\n" + strings.Join(rows, ""))
	}
	return text.String()
}

// Each command, including help and completion, has a help in lines of at most output.Width columns.
func TestHelp(t *testing.T) {
	root := process{}.command(own)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd() // cobra's, unless there is one
	seen := map[string]bool{}
	each(root, func(c *cobra.Command) {
		seen[c.CommandPath()] = true
		if c.Long == "" || c.Short == "" || c.Example == "" || !strings.Contains(c.Long, "Exit status: 0") {
			t.Errorf("%s: no description, no exit status or no example", c.CommandPath())
		}
		_, stdout, _ := ran(slices.Concat([]string{own}, strings.Fields(c.CommandPath())[1:], []string{"--help"})...)
		if !strings.Contains(stdout, "Examples:\n") {
			t.Errorf("%s: %s", c.CommandPath(), stdout)
		}
		golden.Fits(t, c.CommandPath(), stdout, output.Width)
	})
	for _, name := range []string{"", " help", " completion", " explain", " status"} {
		if !seen[own+name] {
			t.Errorf("nobody has looked at %s%s: %v", own, name, seen)
		}
	}
}

// Each command that writes tables has golden tables, and all their lines have at most output.Width columns.
func TestTables(t *testing.T) {
	archived := []string{"plain.txt", "redacted.txt", "unread.txt"} // sysdump archives texts of others
	each(process{}.command(own), func(c *cobra.Command) {
		format := c.Flags().Lookup("output")
		if c.Name() == "sysdump" { // its --output is the archive
			format = c.Flags().Lookup("format")
		}
		if format == nil || format.DefValue != string(output.Table) {
			return
		}
		count := 0
		err := filepath.WalkDir(filepath.Join(c.Name(), "testdata"), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".txt" || slices.Contains(archived, filepath.Base(path)) {
				return err
			}
			text, err := os.ReadFile(path)
			golden.Fits(t, path, string(text), output.Width)
			count++
			return err
		})
		if err != nil || count < 2 {
			t.Errorf("%s: %d tables, %v", c.Name(), count, err)
		}
	})
}

// Each type of flag that does not accept every text has words for what is valid.
func TestValid(t *testing.T) {
	root := process{}.command(own)
	root.PersistentFlags().VisitAll(hasWords(t))
	for _, c := range root.Commands() {
		c.Flags().VisitAll(hasWords(t))
	}
}

func hasWords(t *testing.T) func(*pflag.Flag) {
	return func(f *pflag.Flag) {
		if its := f.Value.Type(); its != "string" && its != "stringArray" && valid[its] == "" {
			t.Errorf("--%s takes a %s: what is valid?", f.Name, its)
		}
	}
}
