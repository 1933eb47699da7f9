package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// overwrite replaces the contents of the record's file.
func (r *rig) overwrite(text string) {
	r.Helper()
	path := filepath.Join(r.store.Pods(), sandbox+"-eth0.json")
	if err := errors.Join(os.MkdirAll(r.store.Pods(), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		r.Fatal(err)
	}
}

// rewrite changes and stores the record.
func (r *rig) rewrite(change func(*record.Record)) {
	r.Helper()
	got := r.record()
	change(&got)
	if err := r.store.Put(got); err != nil {
		r.Fatal(err)
	}
}

// older changes the record so that another release has written the rules.
func (r *rig) older() {
	r.rewrite(func(got *record.Record) { got.RuleSetHash = "cbf29ce484222325" })
}

// unreadable changes the record so that it has settings of another release.
func (r *rig) unreadable() {
	r.rewrite(func(got *record.Record) { got.Spec = json.RawMessage(`{"outboundPort":0}`) })
}

func TestCheckOfRecordedPod(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*rig)
		code   uint // 0: CHECK succeeds
		words  []string
	}{
		"as written":           {func(*rig) {}, 0, nil},
		"configured otherwise": {func(r *rig) { r.conf["redirect"] = object{"outboundPort": 15101} }, 0, nil},
		"agent away":           {func(r *rig) { r.conf["agentSocket"] = unaskable }, 0, nil},
		"left alone": {func(r *rig) { r.annotate(object{annotation.SidecarInject: "false"}); r.must("ADD") }, 0,
			nil},
		"flushed": {func(r *rig) { r.netns.Flush() }, codeDrift,
			[]string{"the rules differ from what was written"}},
		"cannot look": {func(r *rig) { r.netns.Fail = map[string]error{"Check": errors.New("no memory")} }, codeRules,
			[]string{"no memory"}},
		"another namespace": {func(r *rig) { r.netnsID = "boot/4026532290/9" }, codeDrift,
			[]string{"boot/4026532290/9", podNetNS}},
		"namespace gone": {func(r *rig) { r.args.Netns = "/nonexistent" }, codeNetNS, []string{"CNI_NETNS", "/nonexistent"}},
		"own namespace": {func(r *rig) { r.args.Netns = "/proc/thread-self/ns/net" }, codeNetNS,
			[]string{"CNI_NETNS", "caller's own"}},
		"older rules":          {func(r *rig) { r.older() }, 0, []string{"level=info", "older=true"}},
		"older rules, flushed": {func(r *rig) { r.older(); r.netns.Flush() }, codeDrift, []string{"none are there"}},
		"older rules, another namespace": {func(r *rig) { r.older(); r.netnsID = "boot/4026532290/9" }, codeDrift,
			[]string{"boot/4026532290/9", podNetNS}},
		"no hash": {func(r *rig) { r.rewrite(func(got *record.Record) { got.RuleSetHash = "" }) }, 0,
			[]string{"level=info", "older=true"}},
		"next version": {func(r *rig) { r.overwrite(`{"version":2}`) }, 0,
			[]string{"level=warning", "record version 2", "knows version 1"}},
		"next version, flushed": {func(r *rig) { r.overwrite(`{"version":2}`); r.netns.Flush() }, codeDrift,
			[]string{"none are there", "record version 2"}},
		"next version, namespace gone": {func(r *rig) { r.overwrite(`{"version":2}`); r.args.Netns = "/nonexistent" },
			codeNetNS, []string{"CNI_NETNS"}},
		"next version, outside the mesh": {func(r *rig) {
			r.annotate(object{})
			r.overwrite(`{"version":2}`)
			r.netns.Flush()
		}, 0, []string{"level=warning", "record version 2"}},
		"garbage":          {func(r *rig) { r.overwrite("garbage") }, 0, []string{"level=warning", sandbox}},
		"garbage, flushed": {func(r *rig) { r.overwrite("garbage"); r.netns.Flush() }, codeDrift, []string{sandbox}},
		"unreadable settings": {func(r *rig) { r.unreadable() }, 0,
			[]string{"level=warning", "settings cannot be read", "outboundPort"}},
		"unreadable settings, flushed": {func(r *rig) { r.unreadable(); r.netns.Flush() }, codeDrift,
			[]string{"none are there"}},
		"bad configuration": {func(r *rig) { r.conf["backend"] = "ebpf" }, 7,
			[]string{"backend", `"ebpf"`, "auto, nftables"}},
		"bad CNI_ARGS": {func(r *rig) { r.args.Args = "K8S_POD_NAME" }, 4, []string{"CNI_ARGS", "K8S_POD_NAME", "KEY=VALUE"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.must("ADD")
			test.change(r)
			if test.code == 0 {
				r.must("CHECK")
				says(t, r.log.String(), test.words...)
			} else {
				r.fails("CHECK", test.code, test.words...)
			}
		})
	}
}

// A failing CHECK costs a pod its sandbox. Without a record it fails only if the annotations show that the pod was in
// the mesh when its network was made. About other pods the agent is not asked: what the pod and its namespace say now
// makes no difference, and an agent that does not answer costs no time.
func TestCheckOfUnrecordedPod(t *testing.T) {
	away := func(facts.Request) (redirect.Pod, error) { return redirect.Pod{}, errors.New("nobody is there") }
	knows := func(change func(*redirect.Pod)) func(facts.Request) (redirect.Pod, error) {
		return func(facts.Request) (redirect.Pod, error) {
			pod := cart()
			change(&pod)
			return pod, nil
		}
	}
	const never, unknown = "its ADD never completed", "its annotations do not show the pod to be in the mesh"
	const untold = "hands over no annotations"
	inMesh := knows(func(*redirect.Pod) {})
	for name, test := range map[string]struct {
		annotations object // that the runtime passes; nil: none
		answer      func(facts.Request) (redirect.Pod, error)
		conf        object
		asks        int
		code        uint // 0: CHECK succeeds
		words       []string
	}{
		"annotations, no agent": {mesh, nil, object{"agentSocket": ""}, 0, codeNoRecord,
			[]string{"shop/cart-0", never}},
		"annotations, away":                 {mesh, away, nil, 1, codeNoRecord, []string{never, "nobody is there"}},
		"annotations, and the agent agrees": {mesh, inMesh, nil, 1, codeNoRecord, []string{never}},
		"annotations, which are others by now": {mesh, knows(func(p *redirect.Pod) {
			p.Annotations = map[string]string{annotation.Initialize: "ture"}
		}), nil, 1, codeNoRecord, []string{never, "ture"}},
		"annotations, an invalid one": {object{annotation.SidecarStatus: "", annotation.ExcludeInboundPorts: "x"}, nil,
			object{"agentSocket": ""}, 0, codeNoRecord, []string{never, annotation.ExcludeInboundPorts}},
		"outside":                  {object{}, nil, nil, 0, 0, []string{"level=info", "reason=not-injected"}},
		"outside, annotated since": {object{}, inMesh, nil, 0, 0, []string{"level=info", "reason=not-injected"}},
		"outside, opted in by the namespace since": {object{}, inMesh, object{"selection": "annotated"}, 0, 0,
			[]string{"level=info", "reason=not-opted-in"}},
		"an answer that is none": {object{annotation.Initialize: "ture"}, nil, nil, 0, 0,
			[]string{"level=warning", unknown, "ture"}},
		"nothing, no agent":           {nil, nil, object{"agentSocket": ""}, 0, 0, []string{"level=warning", untold}},
		"nothing, away":               {nil, away, nil, 0, 0, []string{"level=warning", untold}},
		"nothing, away, fail open":    {nil, away, object{"auxFailOpen": true}, 0, 0, []string{"level=warning", untold}},
		"nothing, in the mesh by now": {nil, inMesh, nil, 0, 0, []string{"level=warning", untold}},
		"nothing, excluded": {nil, away, object{"excludeNamespaces": []any{"shop"}}, 0, 0,
			[]string{"level=info", "reason=namespace-excluded"}},
		"without a proxy": {mesh, knows(func(p *redirect.Pod) { p.Containers = p.Containers[:1] }), nil, 1, 0,
			[]string{"level=info", "reason=opted-in-no-proxy"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if r.annotate(test.annotations); test.annotations == nil {
				delete(r.conf, "runtimeConfig")
			}
			r.answer, r.conf["agentSocket"] = test.answer, unaskable
			maps.Copy(r.conf, test.conf)
			if test.code == 0 {
				r.must("CHECK")
				says(t, r.log.String(), test.words...)
			} else {
				r.fails("CHECK", test.code, test.words...)
			}
			if len(r.asked) != test.asks || r.opened != 0 {
				t.Errorf("asked %d times, opened %d", len(r.asked), r.opened)
			}
		})
	}
}

// CHECK waits for the agent for a short time only, whatever ADD's timeout is: CRI-O runs CHECK for all sandboxes in
// turn.
func TestCheckDoesNotWait(t *testing.T) {
	r := newRig(t)
	r.conf["agentSocket"], r.conf["agentTimeout"] = unaskable, "60s"
	asked := false
	r.ask = func(ctx context.Context, _ string, _ facts.Request) (redirect.Pod, error) {
		deadline, bounded := ctx.Deadline()
		if asked = true; !bounded || deadline.After(time.Now().Add(checkTimeout)) {
			t.Errorf("it waits until %v", deadline)
		}
		return redirect.Pod{}, errors.New("nobody is there")
	}
	r.fails("CHECK", codeNoRecord)
	if !asked {
		t.Error("nobody was asked")
	}
}

func TestDelRemoves(t *testing.T) {
	r := newRig(t)
	r.must("ADD")
	r.must("DEL")
	r.clean()
	r.must("DEL")
	if r.netns.Calls["Remove"] != 1 {
		t.Errorf("Remove was called %d times", r.netns.Calls["Remove"])
	}
}

// DEL without a record touches nothing, even if the namespace has rules: they may not be this attachment's.
func TestDelWithoutRecord(t *testing.T) {
	r := newRig(t)
	r.must("ADD")
	r.args.IfName = "net1"
	r.must("DEL")
	if r.opened != 1 || r.netns.Dump() == "" {
		t.Errorf("opened %d times, namespace %q", r.opened, r.netns.Dump())
	}
	if _, err := os.Stat(r.store.Pods()); err != nil {
		t.Error(err)
	}
}

func TestDelNeverFails(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*rig)
		log    string // what the log line contains
		rules  bool   // whether the rules stay
		record bool   // whether the record stays
	}{
		"no namespace given": {func(r *rig) { r.args.Netns = "" }, "level=info", true, false},
		"namespace gone":     {func(r *rig) { r.args.Netns = "/nonexistent" }, "level=info", true, false},
		"own namespace":      {func(r *rig) { r.args.Netns = "/proc/thread-self/ns/net" }, "caller's own", true, false},
		"another namespace":  {func(r *rig) { r.netnsID = "boot/1/1" }, "boot/1/1", true, false},
		"rules cannot go": {func(r *rig) { r.netns.Fail = map[string]error{"Remove": errors.New("busy")} }, "busy", true,
			false},
		"garbage record": {func(r *rig) { r.overwrite("garbage") }, "reading the record failed", true, false},
		"next version":   {func(r *rig) { r.overwrite(`{"version":2}`) }, "record version 2", true, false},
		"unreadable settings": {func(r *rig) { r.rewrite(func(got *record.Record) { got.Spec = []byte("5") }) },
			"level=info", false, false},
		"bad CNI_ARGS":        {func(r *rig) { r.args.Args = "K8S_POD_NAME" }, "level=info", false, false},
		"no CNI_ARGS":         {func(r *rig) { r.args.Args = "" }, "level=info", false, false},
		"bad backend":         {func(r *rig) { r.conf["backend"] = 5 }, "backend", false, false},
		"bad settings":        {func(r *rig) { r.conf["redirect"] = object{"outboundPort": 70000} }, "70000", false, false},
		"bad log level":       {func(r *rig) { r.conf["logLevel"] = "loud" }, "loud", false, false},
		"bad previous result": {func(r *rig) { r.conf["prevResult"] = 5 }, "level=info", false, false},
		"bad state directory": {func(r *rig) { r.conf["stateDir"] = 5 }, "stateDir", true, true},
		"not a directory":     {func(r *rig) { r.conf["stateDir"] = "/dev/null" }, "/dev/null", true, true},
		"other mind, no agent": {func(r *rig) { r.annotate(object{}); r.conf["agentSocket"] = unaskable }, "level=info",
			false, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.must("ADD")
			test.change(r)
			for range 2 {
				if err := r.call("DEL"); err != nil {
					t.Fatalf("DEL: %v", err)
				}
				if test.log != "" {
					says(t, r.log.String(), test.log)
				}
				test.log = "" // a second DEL may have nothing left to report
			}
			if left := r.netns.Dump() != ""; left != test.rules {
				t.Errorf("namespace %q", r.netns.Dump())
			}
			if files, _ := filepath.Glob(filepath.Join(r.store.Pods(), "*")); len(files) > 0 != test.record {
				t.Errorf("left %q", files)
			}
		})
	}
}

func TestGC(t *testing.T) {
	r := newRig(t)
	put := func(network, id, ifname string) {
		record := record.Record{Network: network, ContainerID: id, IfName: ifname, Decision: record.Redirect}
		if err := r.store.Put(record); err != nil {
			t.Fatal(err)
		}
	}
	put("podnet", "alive", "eth0")
	put("podnet", "alive", "net1")
	put("podnet", "stale", "eth0")
	put("othernet", "stale", "eth1")
	left := func(want string) {
		t.Helper()
		records, errs := r.store.List()
		var names []string
		for _, got := range records {
			names = append(names, got.ContainerID+"-"+got.IfName)
		}
		if got := strings.Join(names, " "); got != want || len(errs) > 0 {
			t.Errorf("records %q, %v, want %q", got, errs, want)
		}
	}
	r.must("GC")
	says(t, r.log.String(), "level=warning", "cni.dev/valid-attachments is missing")
	left("alive-eth0 alive-net1 stale-eth0 stale-eth1")

	for _, wrong := range []any{5, "x", object{}, []any{5}, []any{object{"containerID": 5}}} {
		r.conf["cni.dev/valid-attachments"] = wrong
		r.fails("GC", 7, "cni.dev/valid-attachments", "a list of {containerID, ifname}")
	}
	left("alive-eth0 alive-net1 stale-eth0 stale-eth1")

	r.conf["cni.dev/valid-attachments"] = []any{object{"containerID": "alive", "ifname": "eth0", "extra": 1}}
	r.must("GC")
	says(t, r.log.String(), "removed=2")
	left("alive-eth0 stale-eth1")
	r.conf["cni.dev/valid-attachments"] = nil
	r.must("GC")
	left("stale-eth1")
	r.overwrite("garbage")
	r.fails("GC", codeRecord, sandbox)
	if r.opened != 0 || len(r.asked) != 0 {
		t.Error("GC opened a namespace or asked the agent")
	}
}

// told checks what STATUS has stored for the agent: a text with all parts, or nothing if there are no parts.
func told(t *testing.T, r *rig, parts ...string) {
	t.Helper()
	why, err := r.store.Problem()
	if err != nil || len(parts) == 0 && why != "" {
		t.Errorf("the agent is told %q, %v", why, err)
	}
	says(t, why, parts...)
}

func TestStatus(t *testing.T) {
	r := newRig(t)
	r.must("STATUS")
	socket := r.withAgent()
	r.must("STATUS")
	says(t, r.log.String(), "level=warning", "the agent does not answer", socket)
	r.conf["statusRequiresAgent"] = true
	r.fails("STATUS", 50, "statusRequiresAgent", socket)
	r.conf["agentTimeout"] = "60s"
	r.serve(socket, nil)
	r.must("STATUS")
	says(t, r.log.String(), "level=info")

	r.conf["redirect"] = object{"proxyUID": 0}
	r.fails("STATUS", 7, "redirect.proxyUID", "0")
	delete(r.conf, "redirect")
	r.conf["backend"] = "iptables"
	var tried redirect.RuleSet
	r.usable = func(b netfilter.Backend, rules redirect.RuleSet) error {
		tried = rules
		_, err := (&netfilter.Fake{Lacking: errors.New("no iptables-restore")}).Apply(b, rules)
		return err
	}
	r.getenv = func(name string) string { return map[string]string{entry.EnvInstaller: "1"}[name] }
	r.must("STATUS")
	told(t, r)
	if len(tried.Tables) > 0 {
		t.Error("the installer's rights are tried")
	}
	r.getenv = os.Getenv
	r.fails("STATUS", 50, "looking for a backend", "iptables", "no iptables-restore")
	told(t, r, "looking for a backend", "iptables", "no iptables-restore")
	for mode, same := range map[string]string{"REDIRECT": "REDIRECT", "TPROXY": "TPROXY", "NONE": "REDIRECT"} {
		r.conf["redirect"] = object{"mode": mode}
		r.fails("STATUS", 50)
		want := redirect.DefaultSpec()
		want.Mode = redirect.Mode(same)
		if tried.Hash() != want.RuleSet().Hash() {
			t.Errorf("%s: other rules are tried:\n%s", mode, tried)
		}
	}
	r.usable = func(netfilter.Backend, redirect.RuleSet) error { return errors.New("no scratch") }
	r.must("STATUS")
	says(t, r.log.String(), "level=warning", "no backend could be tried", "no scratch")
	told(t, r)
	r.usable = func(netfilter.Backend, redirect.RuleSet) error { return nil }
	r.must("STATUS")
	told(t, r)
	if r.opened != 0 {
		t.Error("STATUS opened a namespace")
	}
}
