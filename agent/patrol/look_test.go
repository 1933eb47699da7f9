package patrol

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/record"
)

// looking returns a Repairer with a script as the program that looks, and the record of a pod on the node.
func looking(t *testing.T, mode Mode, script string) (r *Repairer, its record.Record, dir string) {
	t.Helper()
	r, _, dir = repairing(t, mode, "")
	r.Look = filepath.Join(dir, "look")
	write(t, r.Look, "#!/bin/sh\necho \"$@\" >"+dir+"/asked\nenv >>"+dir+"/asked\n"+script, 0o755)
	pod := agenttest.Running("cart")
	write(t, filepath.Join(dir, "netns/cni-1"), "", 0o600)
	write(t, filepath.Join(dir, "cache/results/podnet-1-eth0"), cachedBy("1.3", string(pod.UID), "1", dir+"/netns/cni-1",
		"10.0.0.1"), 0o600)
	its = agenttest.RecordFor(pod, "1/1")
	its.ContainerID = "1"
	return r, its, dir
}

var packet = Packet{From: "uid:1:2", Proto: "tcp", To: "1.2.3.4:5"}

// The program is called for the network namespace of the record, with an environment of its own, and its output is
// returned.
func TestTrace(t *testing.T) {
	r, its, dir := looking(t, Apply, `echo '{"from":"1.2.3.4:5","end":{"where":"pod"}}'`)
	t.Setenv("SECRET", "x")
	told := r.Trace(t.Context(), its, packet)
	if told.Why != "" || told.From != "1.2.3.4:5" || told.End.Where != report.Pod {
		t.Errorf("%+v", told)
	}
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	await.Must(t, err)
	lines := strings.Split(string(asked), "\n")
	if lines[0] != "trace --netns="+dir+"/netns/cni-1 --netns-id="+string(its.NetNS)+
		" --from=uid:1:2 --proto=tcp --to=1.2.3.4:5" || !slices.Contains(lines, mostLookMemory) ||
		strings.Contains(string(asked), "SECRET") {
		t.Errorf("%s", asked)
	}
	its.IfName, its.Network = "net1", "mesh" // attached by Multus, so it is not in the runtime's cache
	for what, why := range map[string]string{"trace": r.Trace(t.Context(), its, packet).Why,
		"rules": r.Rules(t.Context(), its).Why} {
		if why != "" {
			t.Errorf("%s, attached by Multus: %s", what, why)
		}
	}
	its.Decision = record.Untouched // the kernel can be asked all the same
	if told := r.Trace(t.Context(), its, packet); told.Why != "" {
		t.Errorf("left untouched: %+v", told)
	}
}

// The rules in the network namespace of the record are read, with any backend.
func TestRules(t *testing.T) {
	r, its, dir := looking(t, Apply, `echo '{"tables":[{"family":"ip","name":"n"}]}'`)
	its.Backend = "iptables-nft"
	if told := r.Rules(t.Context(), its); told.Why != "" || len(told.Tables) != 1 || told.Tables[0].Name != "n" {
		t.Errorf("%+v", told)
	}
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	await.Must(t, err)
	if want := "rules --netns=" + dir + "/netns/cni-1 --netns-id=" + string(its.NetNS) + "\n"; !strings.HasPrefix(
		string(asked), want) {
		t.Errorf("%s, want %s", asked, want)
	}
	r.Look += "ing"
	if told := r.Rules(t.Context(), its); !strings.Contains(told.Why, "the agent's image has no") || told.Tables == nil {
		t.Errorf("%+v", told)
	}
	r.Mode = Off
	if told := r.Rules(t.Context(), its); told.Value != "repair: apply" || told.Tables == nil {
		t.Errorf("%+v", told)
	}
}

// If the agent may not look, or the program fails, the result says so, with the chart's value that would change it.
func TestNoTrace(t *testing.T) {
	for name, c := range map[string]struct {
		mode       Mode
		script     string
		change     func(*Repairer, *record.Record)
		why, value string
	}{
		"no rights": {mode: Off, why: "--repair=off", value: "repair: apply"},
		"deleting":  {mode: Delete, why: "--repair=delete", value: "repair: apply"},
		"iptables": {mode: Apply, change: func(_ *Repairer, its *record.Record) { its.Backend = "iptables-legacy" },
			why: "iptables-legacy", value: "backend: nftables"},
		"an unknown sandbox": {mode: Apply, change: func(_ *Repairer, its *record.Record) { its.ContainerID = "2" },
			why: "does not know it"},
		"no program": {mode: Apply, change: func(r *Repairer, _ *record.Record) { r.Look += "ing" },
			why: "the agent's image has no "},
		"it fails":      {mode: Apply, script: "echo oops >&2; exit 1", why: "oops"},
		"it fails mute": {mode: Apply, script: "exit 3", why: "exit status 3"},
		"no JSON":       {mode: Apply, script: "echo oops", why: "invalid character"},
		"it tells nothing": {mode: Apply, script: `echo '{"why":"no kernel", "value":"v"}'`, why: "no kernel",
			value: "v"},
		"too much": {mode: Apply, script: `printf '{"why": "'; head -c 2000000 /dev/zero | tr '\0' x; printf '"}'`,
			why: "unexpected end"},
	} {
		r, its, _ := looking(t, c.mode, c.script)
		if c.change != nil {
			c.change(r, &its)
		}
		told := r.Trace(t.Context(), its, packet)
		if !strings.Contains(told.Why, c.why) || !strings.HasPrefix(told.Value, c.value) ||
			(c.value == "") != (told.Value == "") || len(told.Why) > 1000 || told.Steps != nil {
			t.Errorf("%s: %.500v", name, told)
		}
	}
}

// Only one process at a time looks into a pod's network namespace, or repairs there. Somebody who has not got his turn
// in half of his time is told so: that says nothing about the pod's rules. An ADD waits as long as it takes.
func TestOneAtATime(t *testing.T) {
	r, its, dir := looking(t, Apply, "echo '{}'")
	end, err := r.begin(t.Context())
	await.Must(t, err)
	shortly := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if got := r.Check(shortly(), its); got.Looked || got.Why != errBusy.Error() {
		t.Errorf("CHECK while another process runs: %+v", got)
	}
	if got := r.Trace(shortly(), its, packet); got.Why != errBusy.Error() {
		t.Errorf("a trace while another process runs: %+v", got)
	}
	if got := r.Rules(shortly(), its); got.Why != errBusy.Error() || got.Tables == nil {
		t.Errorf("rules while another process runs: %+v", got)
	}
	added := make(chan error)
	go func() { added <- r.run(t.Context(), "ADD", r.Plugin, sandbox{containerID: "1"}, "/x") }()
	for _, file := range []string{"called", "asked"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			t.Error("a process runs beside another:", file)
		}
	}
	end()
	await.Must(t, <-added)
	if got := r.Check(t.Context(), its); !got.Looked || got.Drift != "" {
		t.Errorf("afterwards: %+v", got)
	}
	if got := r.Rules(t.Context(), its); got.Why != "" {
		t.Errorf("afterwards: %+v", got)
	}
}

// A program that hangs is ended, even if it has left a child with its output open.
func TestTraceHangs(t *testing.T) {
	r, its, dir := looking(t, Apply, "")
	write(t, r.Look, "#!/bin/sh\nsleep 1000 & echo $! >"+dir+"/child; echo >"+dir+"/asked; wait", 0o755)
	t.Cleanup(func() {
		child, err := os.ReadFile(filepath.Join(dir, "child"))
		await.Must(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(child)))
		await.Must(t, err)
		await.Must(t, syscall.Kill(pid, syscall.SIGKILL))
	})
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan report.Trace)
	go func() { told <- r.Trace(ctx, its, packet) }()
	await.Eventually(t, time.Minute, "it runs", func() bool {
		asked, _ := os.ReadFile(filepath.Join(dir, "asked"))
		return len(asked) > 0
	})
	cancel()
	if got := <-told; !strings.Contains(got.Why, "has not ended in time") {
		t.Errorf("%+v", got)
	}
}
