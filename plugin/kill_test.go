package plugin

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// killAt are the system calls at which ADD is killed, each time it makes one: all that change anything outside the
// process, and those in between. The Go runtime's own calls (signals, memory, locks) are left out. With iptables the
// many harmless calls of its programs are left out too.
var killAt = map[netfilter.Backend][]string{
	netfilter.Nftables: {"execve", "openat", "read", "newfstatat", "fstat", "statfs", "setns", "ioctl", "socket", "bind",
		"connect", "setsockopt",
		"getsockopt", "sendto", "sendmsg", "recvfrom", "recvmsg", "mkdirat", "write", "fsync", "renameat", "unlinkat",
		"fchmod", "clone",
		"close", "fcntl", "exit_group"},
	netfilter.IptablesNFT: {"execve", "setns", "ioctl", "socket", "connect", "sendto", "sendmsg", "mkdirat", "write",
		"fsync", "renameat", "unlinkat",
		"fchmod", "clone", "pipe2", "waitid", "exit_group"},
}

// mostCalls is more than ADD makes of one system call. The loop over them must also end if a filter (-run) leaves out
// the subtest in which ADD completes.
const mostCalls = 1000

// TestKill kills ADD, or a program that it runs, by SIGKILL at the n-th time it makes a system call, for every n until
// ADD completes. The state that is left must be empty, or one that nothing takes for complete, and the next ADD must
// complete it. strace counts the calls of each thread separately, so one n may hit either of two threads; each one is
// tried.
func TestKill(t *testing.T) {
	for backend, calls := range killAt {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			k := killer{backend: backend}
			k.complete = k.undisturbed(t)
			whole := true
			for _, call := range calls {
				killed := true
				for n := 1; killed && n <= mostCalls; n++ {
					ran := false
					t.Run(fmt.Sprintf("%s/%d", call, n), func(t *testing.T) {
						ran, killed = true, false // if try ends the subtest
						killed = k.try(t, call, n)
					})
					whole = whole && ran
				}
				if whole && killed {
					t.Errorf("ADD makes more than %d calls of %s", mostCalls, call)
				}
			}
			if whole && (k.points < 40 || k.left["none"] == 0 || k.left["complete"] == 0) {
				t.Errorf("no good test: killed %d times, left %v", k.points, k.left)
			}
			t.Logf("%s: killed at %d points; rules then: %v, records: %d, errors: %d", backend, k.points, k.left, k.recorded,
				k.refused)
		})
	}
}

type killer struct {
	backend  netfilter.Backend
	complete string // the listing after an undisturbed ADD
	points   int
	left     map[string]int // how often each state was left
	recorded int
	refused  int // how many ADDs returned an error by themselves
}

func (k *killer) invocation(t *testing.T) *invocation {
	call := newInvocation(newNetNS(t), t.TempDir())
	call.conf["backend"] = k.backend
	call.conf["redirect"] = object{"mode": "TPROXY", "dnsCapture": true}
	return call
}

func (k *killer) undisturbed(t *testing.T) string {
	k.left = map[string]int{}
	call := k.invocation(t)
	k.must(t, call, "ADD")
	return k.listing(t, call)
}

func (k *killer) must(t *testing.T, call *invocation, verb string) {
	t.Helper()
	if status, stdout, stderr := call.run(t, verb); status != 0 {
		t.Errorf("%s: %s %s", verb, stdout, stderr)
	}
}

// listing returns the packet rules.
func (k *killer) listing(t *testing.T, call *invocation) string {
	t.Helper()
	out, err := exec.Command("nsenter", "--net="+call.env["CNI_NETNS"], "nft", "-s", "list", "ruleset").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// try kills ADD at one point and inspects what is left. It returns false if ADD completed before that point.
func (k *killer) try(t *testing.T, name string, n int) (killed bool) {
	call := k.invocation(t)
	killed, failed := call.killedAt(t, name, n)
	if killed {
		k.points++
	}
	rules := k.listing(t, call)
	if failed && rules != "" { // a program was killed, not the plugin
		t.Errorf("ADD returned an error and left %s", rules)
	}
	if failed {
		k.refused++
	}
	k.inspect(t, call, rules)
	k.must(t, call, "ADD")
	if rules := k.listing(t, call); rules != k.complete {
		t.Errorf("the next ADD left %s", rules)
	}
	k.must(t, call, "CHECK")
	return killed
}

// inspect checks the state after a kill.
func (k *killer) inspect(t *testing.T, call *invocation, rules string) {
	state := map[string]string{"": "none", k.complete: "complete"}[rules]
	if state == "" {
		state = "partial"
	}
	k.left[state]++
	_, err := record.Store{Dir: call.conf["stateDir"].(string)}.Get(sandbox, "eth0")
	if err == nil {
		k.recorded++
	}
	switch {
	case err == nil && state != "complete":
		t.Errorf("a record of %s rules: %s", state, rules)
	case state == "partial" && k.backend == netfilter.Nftables:
		t.Errorf("not all or nothing: %s", rules)
	case state == "partial":
		k.drifts(t, call)
	}
	if status, stdout, _ := call.run(t, "CHECK"); (status == 0) != (err == nil) {
		t.Errorf("record: %v, CHECK: %s", err, stdout)
	}
}

// drifts checks that CHECK would detect partial rules even if they had a record.
func (k *killer) drifts(t *testing.T, call *invocation) {
	settings, err := json.Marshal(call.conf["redirect"])
	if err != nil {
		t.Fatal(err)
	}
	spec, err := redirect.ParseSpec(settings)
	if err != nil {
		t.Fatal(err)
	}
	netns, err := netfilter.Open(call.env["CNI_NETNS"])
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	if err := netns.Check(netfilter.Applied{Backend: k.backend}, spec.RuleSet()); !netfilter.IsDrift(err) {
		t.Errorf("partial rules, but Check says %v", err)
	}
}

// killedAt runs ADD under strace, which also waits for the programs that a killed ADD leaves running. killed is true if
// the plugin or one of its programs was killed, failed if the plugin itself ended with an error.
func (i *invocation) killedAt(t *testing.T, call string, n int) (killed, failed bool) {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := i.command(t, "ADD", "strace", "-f", "-o", trace, "-e", "trace="+call,
		fmt.Sprintf("--inject=%s:signal=KILL:when=%d", call, n))
	out, failure := cmd.CombinedOutput()
	seen, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	killed = strings.Contains(string(seen), "+++ killed by SIGKILL +++")
	if !killed && failure != nil {
		t.Errorf("not killed, and still: %v: %s", failure, out)
	}
	return killed, cmd.ProcessState.ExitCode() == 1
}
