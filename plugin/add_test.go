package plugin

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

func TestAddRedirects(t *testing.T) {
	r := newRig(t)
	start := time.Now()
	r.netns.Skips = []netfilter.Skipped{{What: "ip6", Reason: "none"}}
	r.conf["redirect"] = object{"excludeOutboundPorts": "3306"}
	r.must("ADD")
	r.redirected(`{"excludeOutboundPorts":"3306"}`)
	if got := r.out.String(); got != previous+"\n" {
		t.Errorf("printed %q", got)
	}
	says(t, r.log.String(), "pod=shop/cart-0", "sandbox="+sandbox, "network=podnet", "decision=redirect",
		"reason=injected",
		"backend=nftables", "level=info")

	got := r.record()
	if got.Time.Before(start) || time.Since(got.Time) > time.Minute || got.DurationMicroseconds < 0 {
		t.Errorf("time %v, duration %d", got.Time, got.DurationMicroseconds)
	}
	spec, err := redirect.ParseSpec(got.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if hash := spec.RuleSet().Hash(); hash != got.RuleSetHash || spec.ExcludeOutboundPorts.String() != "3306" {
		t.Errorf("settings %s with hash %s, recorded %s", got.Spec, hash, got.RuleSetHash)
	}
	if len(got.Created) == 0 || !strings.Contains(r.netns.Dump(), "created "+got.Created[0]+"\n") {
		t.Errorf("created %q, the namespace holds\n%s", got.Created, r.netns.Dump())
	}
	want := record.Record{
		Version: 1, Network: "podnet", IfName: "eth0", ContainerID: sandbox, PodUID: "0f3b2a52", Namespace: "shop",
		Name:  "cart-0",
		NetNS: podNetNS, Decision: "redirect", Reason: "injected", Backend: "nftables", Skipped: []string{"ip6: none"},
		Spec: got.Spec, RuleSetHash: got.RuleSetHash, Created: got.Created, Time: got.Time,
		DurationMicroseconds: got.DurationMicroseconds,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("record %+v\nwant %+v", got, want)
	}
}

func TestAddLeavesAlone(t *testing.T) {
	for name, test := range map[string]struct {
		annotations object
		args        string
		reason      redirect.Reason
		recorded    bool
	}{
		"plain pod":          {object{"app": "x"}, podArgs, redirect.ReasonNotInjected, false},
		"no annotations":     {object{}, podArgs, redirect.ReasonNotInjected, false},
		"no pod":             {mesh, "IgnoreUnknown=1", redirect.ReasonNotKubernetes, true},
		"excluded namespace": {mesh, "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=p", redirect.ReasonNamespaceExcluded, true},
		"inject false":       {object{annotation.SidecarInject: "false"}, podArgs, redirect.ReasonInjectDisabled, true},
		"mode NONE": {object{annotation.SidecarStatus: "", annotation.InterceptionMode: "NONE"}, podArgs,
			redirect.ReasonModeNone, true},
		"only traffic": {object{annotation.ExcludeInboundPorts: "80"}, podArgs, redirect.ReasonNotInjected, true},
		"build": {object{annotation.SidecarStatus: "", annotation.OpenShiftBuild: "b"}, podArgs,
			redirect.ReasonOpenShiftBuild, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.annotate(test.annotations)
			r.args.Args = test.args
			r.must("ADD")
			if r.netns.Dump() != "" || r.netns.Calls["Apply"] != 0 || r.out.String() != previous+"\n" {
				t.Errorf("touched: %q, printed %q", r.netns.Dump(), r.out.String())
			}
			says(t, r.log.String(), "decision=untouched", "reason="+string(test.reason))
			if !test.recorded {
				r.noRecord()
				if r.opened != 0 {
					t.Error("the namespace was opened for nothing")
				}
			} else if got := r.record(); got.Decision != "untouched" || got.Reason != string(test.reason) ||
				got.NetNS != podNetNS {
				t.Errorf("record %+v", got)
			}
		})
	}
}

func TestAddForeignRules(t *testing.T) {
	r := newRig(t)
	r.netns.Foreign = []string{"chain ISTIO_OUTPUT"}
	r.must("ADD")
	got := r.record()
	if r.netns.Dump() != "" || got.Decision != "untouched" || got.Reason != string(redirect.ReasonForeignRules) {
		t.Errorf("namespace %q, record %+v", r.netns.Dump(), got)
	}
	says(t, got.Detail, "ISTIO_OUTPUT")
	says(t, r.log.String(), "decision=untouched", "reason=foreign-rules")
}

// An untouched pod starts even if its record cannot be written.
func TestUntouchedWithoutRecord(t *testing.T) {
	r := newRig(t)
	r.annotate(object{annotation.SidecarInject: "false"})
	r.conf["stateDir"] = "/dev/null/state"
	r.must("ADD")
	says(t, r.log.String(), "level=warning", "without a record", "/dev/null/state")
	r.args.Netns = "/nonexistent"
	r.must("ADD")
	says(t, r.log.String(), "level=warning", "without a record", "/nonexistent")
}

func TestFailedAddLeavesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		breaks func(*rig)
		code   uint
		words  []string
	}{
		"record": {func(r *rig) { r.conf["stateDir"] = "/dev/null/state" }, codeRecord,
			[]string{"writing the record", "/dev/null/state"}},
		"stdout": {func(r *rig) { r.stdout = brokenPipe{} }, 5, []string{"printing the result", "closed pipe"}},
		"apply": {func(r *rig) { r.netns.Fail = map[string]error{"Apply": errors.New("no buffer")} }, codeRules,
			[]string{"no buffer"}},
		"backend": {func(r *rig) { r.netns.Lacking = errors.New("no nat") }, codeBackend,
			[]string{"backend auto", "no nat"}},
		"netns gone": {func(r *rig) { r.args.Netns = "/nonexistent" }, codeNetNS,
			[]string{"CNI_NETNS", "/nonexistent", "valid: the path"}},
		"own netns": {func(r *rig) { r.args.Netns = "/proc/thread-self/ns/net" }, codeNetNS,
			[]string{"CNI_NETNS", "caller's own"}},
		"no netns": {func(r *rig) { r.args.Netns = "/dev/null" }, codeNetNS, []string{"CNI_NETNS", "/dev/null"}},
		"container ID": {func(r *rig) { r.args.ContainerID = strings.Repeat("a", 300) }, codeRecord,
			[]string{"container ID: invalid value", "a name of 310 bytes"}},
		"stdout, untouched": {func(r *rig) { r.stdout = brokenPipe{}; r.annotate(object{annotation.SidecarInject: "false"}) },
			5,
			[]string{"printing the result"}},
		"stdout, foreign": {func(r *rig) { r.stdout = brokenPipe{}; r.netns.Foreign = []string{"x"} }, 5,
			[]string{"printing the result"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			test.breaks(r)
			r.fails("ADD", test.code, test.words...)
			r.clean()
			r.must("DEL")
		})
	}
}

// If ADD fails and its undo fails too, the error reports both.
func TestFailedUndoIsReported(t *testing.T) {
	r := newRig(t)
	r.stdout, r.netns.Fail = brokenPipe{}, map[string]error{"Remove": errors.New("device busy")}
	r.fails("ADD", 5, "printing the result", "taking back", "device busy")
	r = newRig(t)
	r.conf["stateDir"], r.netns.Fail = "/dev/null/state", map[string]error{"Remove": errors.New("device busy")}
	r.fails("ADD", codeRecord, "writing the record", "taking back", "device busy")
}

func TestAddAgain(t *testing.T) {
	r := newRig(t)
	r.must("ADD")
	first, dump := r.record(), r.netns.Dump()
	r.must("ADD")
	if second := r.record(); r.netns.Dump() != dump || !slices.Equal(first.Created, second.Created) ||
		len(second.Created) == 0 {
		t.Errorf("first created %q, then %q; the namespace holds\n%s", first.Created, second.Created, r.netns.Dump())
	}

	r.annotate(object{annotation.SidecarStatus: "{}", annotation.InterceptionMode: "TPROXY"})
	r.must("ADD")
	r.redirected(`{"mode":"TPROXY"}`)
	if third := r.record(); len(third.Created) <= len(first.Created) || !slices.Contains(third.Created, first.Created[0]) {
		t.Errorf("created %q, then also for TPROXY %q", first.Created, third.Created)
	}
	r.must("DEL")
	r.clean()

	r.must("ADD")
	r.netnsID = "boot/4026532290/9999" // another network namespace: what was created in the earlier one is not in it
	r.must("ADD")
	if created := r.record().Created; len(created) != 0 {
		t.Errorf("in another namespace, created %q", created)
	}
}

// If a later ADD fails, it also removes what the earlier one created: it deletes the record, so DEL would not.
func TestFailedAddAgainLeavesNothing(t *testing.T) {
	for name, breaks := range map[string]func(*rig){
		"stdout": func(r *rig) { r.stdout = brokenPipe{} },
		"record": func(r *rig) { r.conf["name"] = "" }, // a record needs it; skel refuses this earlier
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.must("ADD")
			breaks(r)
			if err := r.call("ADD"); err == nil {
				t.Fatal("ADD succeeds")
			}
			r.clean()
		})
	}
}

func TestAddAgainLeavesAlone(t *testing.T) {
	r := newRig(t)
	r.must("ADD")
	r.annotate(object{annotation.Initialize: "false"})
	r.must("ADD")
	if got := r.record(); got.Decision != "untouched" || r.netns.Dump() != "" {
		t.Errorf("record %+v, namespace %q", got, r.netns.Dump())
	}

	r = newRig(t)
	r.must("ADD")
	r.netnsID = "boot/4026532290/9999" // the sandbox has another network namespace now
	r.annotate(object{annotation.Initialize: "false"})
	r.must("ADD")
	if r.netns.Calls["Remove"] != 0 {
		t.Error("removed something from a namespace that the record is not about")
	}
}
