package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// invocation is one run of the built binary, with the input that a runtime gives it for a mesh pod.
type invocation struct {
	conf  object
	stdin *string // used instead of conf
	env   map[string]string
}

// newInvocation returns an invocation that would succeed.
func newInvocation(netns, stateDir string) *invocation {
	return &invocation{
		conf: object{
			"cniVersion": "1.1.0", "name": "podnet", "type": "istio-pod-network", "stateDir": stateDir, "agentSocket": "",
			"prevResult":    json.RawMessage(previous),
			"redirect":      object{},
			"runtimeConfig": object{annotationsCapability: object{annotation.SidecarStatus: "{}"}},
		},
		env: map[string]string{
			"CNI_CONTAINERID": sandbox, "CNI_NETNS": netns, "CNI_IFNAME": "eth0", "CNI_ARGS": podArgs,
			"CNI_PATH": "/opt/cni/bin",
		},
	}
}

func (i *invocation) annotate(key string, value any) {
	i.conf["runtimeConfig"].(object)[annotationsCapability].(object)[key] = value
}

// command is the command that runs the binary with this input, below the wrapper program if one is given.
func (i *invocation) command(t testing.TB, verb string, wrapper ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := json.Marshal(i.conf)
	if err != nil {
		t.Fatal(err)
	}
	if i.stdin != nil {
		stdin = []byte(*i.stdin)
	}
	words := append(wrapper, path)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + verb}
	for name, value := range i.env { // of two equal names the later one counts, so a case may replace CNI_COMMAND
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if strings.HasPrefix(i.env["CNI_NETNS"], "/proc/") {
		// A network namespace of its own: a plugin that fails to refuse its own one must not write rules to the host.
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	}
	return cmd
}

// run runs the binary and returns its exit status and what it printed.
func (i *invocation) run(t testing.TB, verb string) (status int, stdout, stderr string) {
	t.Helper()
	var out, log bytes.Buffer
	cmd := i.command(t, verb)
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), log.String()
}

// newNetNS makes a network namespace with lo up, as a runtime does, and removes it at the end of the test.
func newNetNS(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	child := exec.Command("cat") // keeps the namespace alive until it is bind-mounted
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	err = unix.Mount(fmt.Sprintf("/proc/%d/ns/net", child.Process.Pid), path, "", unix.MS_BIND, "")
	if err := errors.Join(err, stdin.Close(), child.Wait()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command("nsenter", "--net="+path, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// snapshot lists everything in a namespace that ADD could have left there. The kernel adds the route of an IPv6 address
// asynchronously, and a change during a dump may truncate it. So two listings in a row must agree and contain the
// routes.
func snapshot(t testing.TB, netns string) string {
	t.Helper()
	listing := list(t, netns)
	await.Success(t, time.Minute, "the namespace comes to rest", func() error {
		before := listing
		listing = list(t, netns)
		if withoutCounters(listing) != withoutCounters(before) || !routed(listing) {
			return errors.New(listing)
		}
		return nil
	})
	return listing
}

var inet6 = regexp.MustCompile(`inet6 ([0-9a-f:]+)/`)

// routed reports whether the listing has a route for every IPv6 address.
func routed(listing string) bool {
	return !slices.ContainsFunc(inet6.FindAllStringSubmatch(listing, -1), func(address []string) bool {
		return !strings.Contains(listing, "local "+address[1]+" dev ")
	})
}

func list(t testing.TB, netns string) string {
	t.Helper()
	const list = `nft list ruleset && iptables-legacy-save && ip6tables-legacy-save &&
		printf 'link show lo\naddress\nrule\nroute show table all\n' | ip -o -batch - &&
		printf 'rule\nroute show table all\n' | ip -6 -batch -`
	out, err := exec.Command("nsenter", "--net="+netns, "sh", "-c", list).CombinedOutput()
	if err != nil {
		t.Fatalf("listing the namespace: %v: %s", err, out)
	}
	return string(out)
}

// files lists the files below the directory. It returns none if the directory is missing.
func files(t testing.TB, dir string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "pods"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		found = append(found, entry.Name())
	}
	return found
}

// errorObject decodes stdout, which must be exactly one CNI error object.
func errorObject(t testing.TB, stdout string) types.Error {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(stdout))
	var failure types.Error
	if err := decoder.Decode(&failure); err != nil {
		t.Fatalf("stdout %q is no error object: %v", stdout, err)
	}
	if decoder.More() {
		t.Errorf("more than an error object on stdout: %q", stdout)
	}
	return failure
}

// TestBadInput runs the built binary with every kind of invalid input for a mesh pod. ADD has to say what is wrong and
// leave nothing behind. DEL has to succeed if the input says which attachment it is about.
func TestBadInput(t *testing.T) {
	netns, stateDir := newNetNS(t), filepath.Join(t.TempDir(), "state")
	before := snapshot(t, netns)
	cases := badInputs()
	if len(cases) < 60 {
		t.Errorf("%d cases", len(cases))
	}
	for _, test := range cases {
		t.Run(test.name(), func(t *testing.T) {
			call := newInvocation(netns, stateDir)
			test.change(call)
			status, stdout, stderr := call.run(t, "ADD")
			failure := errorObject(t, stdout)
			if status != 1 || failure.Code != test.code {
				t.Errorf("status %d, code %d, want 1, %d: %s", status, failure.Code, test.code, failure.Msg)
			}
			says(t, failure.Msg, test.key, test.value, test.valid, prefix)
			if len(failure.Msg) > 900 {
				t.Errorf("a message of %d bytes", len(failure.Msg))
			}
			if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "level=error ") {
				t.Errorf("stderr %q, want one line", stderr)
			}
			if after := snapshot(t, netns); after != before {
				t.Errorf("the namespace was\n%s\nand is\n%s", before, after)
			}
			if left := files(t, stateDir); len(left) > 0 {
				t.Errorf("left %q", left)
			}
			test.del(t, call)
		})
	}
	if out, err := exec.Command("nft", "list", "ruleset").CombinedOutput(); err != nil ||
		bytes.Contains(out, []byte(redirect.TableName)) {
		t.Errorf("rules in the caller's own namespace: %v\n%s", err, out)
	}
	if left, _ := filepath.Glob(filepath.Join(entry.DefaultStateDir, "pods", "*"+sandbox+"*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// del runs DEL with the same input and checks its outcome.
func (b badInput) del(t *testing.T, call *invocation) {
	t.Helper()
	if call.env["CNI_COMMAND"] != "" || b.key == "CNI_COMMAND" {
		return
	}
	status, stdout, stderr := call.run(t, "DEL")
	if strings.Count(stderr, "\n") != 1 {
		t.Errorf("DEL: stderr %q, want one line", stderr)
	}
	if b.noDel {
		if failure := errorObject(t, stdout); status != 1 || failure.Code != b.code {
			t.Errorf("DEL: status %d, %q", status, stdout)
		}
		return
	}
	if status != 0 || stdout != "" {
		t.Errorf("DEL: status %d, %q", status, stdout)
	}
}

// TestGoodInput shows that the checks of TestBadInput can see rules, addresses and records, and that invalid input does
// not harm a pod that is already redirected.
func TestGoodInput(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables-nft", "iptables-legacy"} {
		t.Run(backend, func(t *testing.T) {
			netns, stateDir := newNetNS(t), filepath.Join(t.TempDir(), "state")
			before := snapshot(t, netns)
			call := newInvocation(netns, stateDir)
			call.conf["backend"] = backend
			if status, stdout, stderr := call.run(t, "ADD"); status != 0 || stdout != previous+"\n" {
				t.Fatalf("status %d, %q, %q", status, stdout, stderr)
			}
			after := snapshot(t, netns)
			says(t, after, "::6/128", "1337")
			if left := files(t, stateDir); len(left) != 1 {
				t.Errorf("records %q", left)
			}
			call.annotate(annotation.ExcludeInboundPorts, "80,,90")
			if status, stdout, _ := call.run(t, "ADD"); status != 1 || errorObject(t, stdout).Code != codeAnnotation {
				t.Errorf("status %d, %q", status, stdout)
			}
			if now := withoutCounters(snapshot(t, netns)); now != withoutCounters(after) || len(files(t, stateDir)) != 1 {
				t.Errorf("was\n%s\nis\n%s", after, now)
			}
			if status, stdout, stderr := call.run(t, "DEL"); status != 0 || stdout != "" {
				t.Errorf("status %d, %q, %q", status, stdout, stderr)
			}
			if now := snapshot(t, netns); strings.Contains(now, "1337") || strings.Contains(now, "::6") ||
				len(files(t, stateDir)) > 0 {
				t.Errorf("was\n%s\nis\n%s", before, now)
			}
		})
	}
}

// withoutCounters removes the comments of iptables-save, because they contain the time of day.
func withoutCounters(listing string) string {
	var kept []string
	for _, line := range strings.Split(listing, "\n") {
		if !strings.HasPrefix(line, "# ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// TestBadInputOutsideMesh gives pods outside the mesh the input that is refused for a mesh pod.
func TestBadInputOutsideMesh(t *testing.T) {
	netns, stateDir := newNetNS(t), filepath.Join(t.TempDir(), "state")
	before := snapshot(t, netns)
	passes := func(name string, change func(*invocation)) {
		t.Run(name, func(t *testing.T) {
			call := newInvocation(netns, stateDir)
			call.conf["runtimeConfig"] = object{annotationsCapability: object{"app": "x"}}
			change(call)
			if status, stdout, stderr := call.run(t, "ADD"); status != 0 || stdout != previous+"\n" ||
				strings.Count(stderr, "\n") != 1 {
				t.Errorf("status %d, %q, %q", status, stdout, stderr)
			}
			if after := snapshot(t, netns); after != before {
				t.Errorf("the namespace was\n%s\nand is\n%s", before, after)
			}
			if status, stdout, stderr := call.run(t, "DEL"); status != 0 || stdout != "" {
				t.Errorf("DEL: status %d, %q, %q", status, stdout, stderr)
			}
			if left := files(t, stateDir); len(left) > 0 {
				t.Errorf("left %q", left)
			}
		})
	}
	for _, wrong := range wrongAnnotations {
		if wrong.key != annotation.Initialize { // a typo in this plugin's own annotation is always refused
			passes("plain pod, "+wrong.key, func(i *invocation) { i.annotate(wrong.key, wrong.value) })
		}
		passes("excluded namespace, "+wrong.key, func(i *invocation) {
			i.annotate(annotation.SidecarStatus, "{}")
			i.annotate(wrong.key, wrong.value)
			i.env["CNI_ARGS"] = "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=p"
		})
	}
	for _, path := range []string{"/nonexistent", "/dev/null", "/proc/self/ns/net", "/proc/self/ns/mnt"} {
		passes("plain pod in "+path, func(i *invocation) { i.env["CNI_NETNS"] = path })
	}
	passes("long container ID", func(i *invocation) { i.env["CNI_CONTAINERID"] = strings.Repeat("a", 300) })
	passes("state directory is a file", func(i *invocation) { i.conf["stateDir"] = "/dev/null" })
	passes("agent away", func(i *invocation) { i.conf["agentSocket"] = unaskable })
	passes("huge pod name", func(i *invocation) {
		i.env["CNI_ARGS"] = podArgs + ";K8S_POD_NAME=" +
			strings.Repeat("x", 100<<10)
	})
	passes("keys for others", func(i *invocation) {
		i.conf["capabilities"], i.conf["args"], i.conf["ipMasq"] = 5, []any{nil}, "x"
		i.conf["runtimeConfig"].(object)["portMappings"] = "x"
	})
}
