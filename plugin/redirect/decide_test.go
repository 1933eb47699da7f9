package redirect

import (
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// decisions has a case for every way to each reason.
var decisions = []struct {
	name    string
	edits   []edit
	verdict Verdict
	reason  Reason
	mesh    bool // MeshAnnotated
}{
	{"no pod name", []edit{func(p *Pod, _ *Policy) { p.Name = "" }}, Untouched, ReasonNotKubernetes, true},
	{"no namespace", []edit{func(p *Pod, _ *Policy) { p.Namespace = "" }}, Untouched, ReasonNotKubernetes, true},
	{"nothing at all", []edit{func(p *Pod, _ *Policy) { *p = Pod{} }}, Untouched, ReasonNotKubernetes, false},

	{"excluded by a glob", []edit{inNamespace("kube-system")}, Untouched, ReasonNamespaceExcluded, true},
	{"excluded by name", []edit{inNamespace("ops"), excluding("x", "ops")}, Untouched, ReasonNamespaceExcluded, true},
	{"a namespace that only begins so", []edit{inNamespace("ops-2"), excluding("ops")}, Redirect, ReasonInjected, true},
	{"no exclusion", []edit{inNamespace("kube-system"), excluding()}, Redirect, ReasonInjected, true},

	{"deployer", []edit{annotate(annotation.OpenShiftDeployer, "x")}, Untouched, ReasonOpenShiftDeployer, true},
	{"deployer, empty", []edit{noAnnotations, annotate(annotation.OpenShiftDeployer, "")}, Untouched,
		ReasonOpenShiftDeployer, false},
	{"build", []edit{annotate(annotation.OpenShiftBuild, "x")}, Untouched, ReasonOpenShiftBuild, true},

	{"opted out", []edit{annotate(annotation.Initialize, "false")}, Untouched, ReasonOptedOut, true},
	{"opted out, 0", []edit{annotate(annotation.Initialize, "0")}, Untouched, ReasonOptedOut, true},
	{"namespace opted out", []edit{bySelection, namespaceSays("false")}, Untouched, ReasonOptedOut, true},
	{"namespace opted out, by injection", []edit{namespaceSays("false")}, Redirect, ReasonInjected, true},
	{"the pod overrules its namespace", []edit{bySelection, annotate(annotation.Initialize, "true"),
		namespaceSays("false")}, Redirect, ReasonOptedIn, true},
	{"the pod overrules its namespace, no", []edit{bySelection, annotate(annotation.Initialize, "false"),
		namespaceSays("true")},
		Untouched, ReasonOptedOut, true},

	{"inject label", []edit{label("false")}, Untouched, ReasonInjectDisabled, true},
	{"inject annotation", []edit{annotate(annotation.SidecarInject, "false")}, Untouched, ReasonInjectDisabled, true},
	{"inject label over annotation, no", []edit{label("false"), annotate(annotation.SidecarInject, "true")}, Untouched,
		ReasonInjectDisabled, true},
	{"inject label over annotation, yes", []edit{label("true"), annotate(annotation.SidecarInject, "false")}, Redirect,
		ReasonInjected, true},
	{"a label that is no boolean still wins", []edit{label("maybe"), annotate(annotation.SidecarInject, "false")},
		Redirect, ReasonInjected, true},
	{"inject annotation that is no boolean", []edit{annotate(annotation.SidecarInject, "no")}, Redirect, ReasonInjected,
		true},
	{"labels unknown, a status proves the label", []edit{annotate(annotation.SidecarInject, "false"), runtimeOnly,
		withoutAgent}, Redirect, ReasonInjected, true},
	{"labels unknown, so ask", []edit{annotate(annotation.SidecarInject, "false"), runtimeOnly}, Ask, ReasonIncomplete,
		true},
	{"labels unknown, no status", []edit{annotate(annotation.SidecarInject, "false", annotation.Initialize, "true"),
		notInjected, runtimeOnly},
		Untouched, ReasonInjectDisabled, true},

	{"ambient", []edit{annotate(annotation.AmbientRedirection, "enabled")}, Untouched, ReasonAmbient, true},
	{"ambient asked for, not done", []edit{annotate(annotation.AmbientRedirection, "pending")}, Redirect, ReasonInjected,
		true},

	{"istio-init with NET_ADMIN", []edit{initContainer(Container{Name: InitContainer, NetAdmin: true})}, Untouched,
		ReasonOwnInit, true},
	{"istio-init without is a wait", []edit{initContainer(Container{Name: InitContainer})}, Redirect, ReasonInjected,
		true},
	{"another init container with NET_ADMIN", []edit{initContainer(Container{Name: "sysctl", NetAdmin: true})}, Redirect,
		ReasonInjected, true},
	{"a container named istio-init is no init", []edit{func(p *Pod, _ *Policy) {
		p.Containers = append(p.Containers, Container{Name: InitContainer, NetAdmin: true})
	}}, Redirect, ReasonInjected, true},

	{"DISABLE_ENVOY", []edit{proxyEnv(EnvDisableEnvoy, "true")}, Untouched, ReasonEnvoyDisabled, true},
	{"DISABLE_ENVOY of a native sidecar", []edit{proxyEnv(EnvDisableEnvoy, "1"), nativeSidecar}, Untouched,
		ReasonEnvoyDisabled, true},
	{"DISABLE_ENVOY=false", []edit{proxyEnv(EnvDisableEnvoy, "false")}, Redirect, ReasonInjected, true},
	{"DISABLE_ENVOY unreadable", []edit{proxyEnv(EnvDisableEnvoy, "yes")}, Redirect, ReasonInjected, true},
	{"DISABLE_ENVOY of the app", []edit{func(p *Pod, _ *Policy) {
		p.Containers[0].Env = map[string]string{EnvDisableEnvoy: "true"}
	}}, Redirect, ReasonInjected, true},

	{"gateway", []edit{proxyArgs("proxy", "router")}, Untouched, ReasonProxyType, true},
	{"not a proxy command", []edit{proxyArgs("agent", "router")}, Redirect, ReasonInjected, true},
	{"proxy without a type", []edit{proxyArgs("proxy")}, Redirect, ReasonInjected, true},
	{"no arguments", []edit{proxyArgs()}, Redirect, ReasonInjected, true},

	{"mode NONE", []edit{annotate(annotation.InterceptionMode, "NONE")}, Untouched, ReasonModeNone, true},
	{"mode NONE by configuration", []edit{modeNone}, Untouched, ReasonModeNone, true},
	{"the pod overrules mode NONE", []edit{modeNone, annotate(annotation.InterceptionMode, "REDIRECT")}, Redirect,
		ReasonInjected, true},

	{"mode NONE of the sidecar", []edit{proxyEnv(EnvMode, "NONE")}, Untouched, ReasonModeNone, true},
	{"mode NONE of a native sidecar", []edit{proxyEnv(EnvMode, "NONE"), nativeSidecar}, Untouched, ReasonModeNone, true},
	{"the pod overrules its sidecar's mode", []edit{proxyEnv(EnvMode, "NONE"),
		annotate(annotation.InterceptionMode, "TPROXY")}, Redirect, ReasonInjected, true},
	{"the sidecar overrules mode NONE", []edit{modeNone, proxyEnv(EnvMode, "REDIRECT")}, Redirect, ReasonInjected, true},
	{"mode NONE by configuration, no agent", []edit{modeNone, runtimeOnly, withoutAgent}, Untouched, ReasonModeNone,
		true},
	{"mode NONE by configuration, the sidecar is asked", []edit{modeNone, runtimeOnly}, Ask, ReasonIncomplete, true},
	{"mode NONE by configuration, a plain pod", []edit{modeNone, noAnnotations, runtimeOnly}, Untouched,
		ReasonNotInjected, false},

	{"a plain pod", []edit{noAnnotations}, Untouched, ReasonNotInjected, false},
	{"a plain pod, agent not asked", []edit{noAnnotations, runtimeOnly}, Untouched, ReasonNotInjected, false},
	{"nothing is known, and nobody to ask", []edit{unknownAnnotations, runtimeOnly, withoutAgent}, Ask,
		ReasonIncomplete, false},
	{"nothing is known, and nobody to ask, annotated", []edit{bySelection, unknownAnnotations, runtimeOnly,
		withoutAgent}, Ask, ReasonIncomplete, false},
	{"annotations of the mesh, not injected", []edit{notInjected, annotate(annotation.ExcludeInboundPorts, "1")},
		Untouched, ReasonNotInjected, true},
	{"opted in by namespace only", []edit{notInjected, namespaceSays("true")}, Untouched, ReasonNotInjected, false},

	{"nobody opted in", []edit{bySelection}, Untouched, ReasonNotOptedIn, true},
	{"a typo of the namespace, and no sidecar", []edit{bySelection, namespaceSays("ture"), withoutProxy}, Untouched,
		ReasonNotOptedIn, true},
	{"a typo of the namespace, and the pod's own answer", []edit{bySelection, namespaceSays("ture"),
		annotate(annotation.Initialize, "false")}, Untouched, ReasonOptedOut, true},
	{"nobody opted in, no agent", []edit{bySelection, noAnnotations, runtimeOnly, withoutAgent}, Untouched,
		ReasonNotOptedIn, false},

	{"injected, but no proxy", []edit{withoutProxy}, Untouched, ReasonNoProxy, true},
	{"opted in, but no proxy", []edit{notInjected, withoutProxy, annotate(annotation.Initialize, "true")}, Untouched,
		ReasonNoProxy, true},
	{"namespace opted in, but no proxy", []edit{bySelection, noAnnotations, withoutProxy, namespaceSays("true")},
		Untouched, ReasonNoProxy, false},

	{"injected", nil, Redirect, ReasonInjected, true},
	{"injected, empty status", []edit{annotate(annotation.SidecarStatus, "")}, Redirect, ReasonInjected, true},
	{"native sidecar", []edit{nativeSidecar}, Redirect, ReasonInjected, true},
	{"injected, no agent", []edit{runtimeOnly, withoutAgent}, Redirect, ReasonInjected, true},
	{"static pod", []edit{func(p *Pod, _ *Policy) { p.UID = "0123456789abcdef0123456789abcdef" }}, Redirect,
		ReasonInjected, true},

	{"opted in", []edit{notInjected, annotate(annotation.Initialize, "true")}, Redirect, ReasonOptedIn, true},
	{"opted in and injected", []edit{annotate(annotation.Initialize, "true")}, Redirect, ReasonOptedIn, true},
	{"opted in, annotated", []edit{bySelection, notInjected, annotate(annotation.Initialize, "1")}, Redirect,
		ReasonOptedIn, true},
	{"namespace opted in, annotated", []edit{bySelection, noAnnotations, namespaceSays("true")}, Redirect, ReasonOptedIn,
		false},
	{"opted in, no agent", []edit{bySelection, notInjected, annotate(annotation.Initialize, "true"), runtimeOnly,
		withoutAgent}, Redirect, ReasonOptedIn, true},

	{"annotations unknown", []edit{unknownAnnotations, runtimeOnly}, Ask, ReasonIncomplete, false},
	{"annotations unknown, annotated", []edit{bySelection, unknownAnnotations, runtimeOnly}, Ask, ReasonIncomplete, false},
	{"containers needed", []edit{runtimeOnly}, Ask, ReasonIncomplete, true},
	{"containers needed, opted in", []edit{notInjected, annotate(annotation.Initialize, "true"), runtimeOnly}, Ask,
		ReasonIncomplete, true},
	{"namespace needed", []edit{bySelection, noAnnotations, runtimeOnly}, Ask, ReasonIncomplete, false},
	{"the agent knows of no annotations", []edit{unknownAnnotations}, Untouched, ReasonNotInjected, false},
	{"opted out, agent not asked", []edit{annotate(annotation.Initialize, "false"), runtimeOnly}, Untouched,
		ReasonOptedOut, true},
	{"mode NONE, agent not asked", []edit{annotate(annotation.InterceptionMode, "NONE"), runtimeOnly}, Untouched,
		ReasonModeNone, true},
}

func inNamespace(name string) edit { return func(p *Pod, _ *Policy) { p.Namespace = name } }

func excluding(globs ...string) edit {
	return func(_ *Pod, policy *Policy) { policy.ExcludeNamespaces = globs }
}

func modeNone(_ *Pod, policy *Policy) { policy.Redirect.Mode = ModeNone }

func TestDecide(t *testing.T) {
	for _, test := range decisions {
		pod, policy := meshPod(test.edits...)
		got, err := Decide(pod, policy)
		if err != nil || got.Verdict != test.verdict || got.Reason != test.reason || got.MeshAnnotated != test.mesh {
			t.Errorf("%s: %s, %s, mesh %t, %v, want %s, %s, mesh %t", test.name, got.Verdict, got.Reason, got.MeshAnnotated, err,
				test.verdict, test.reason, test.mesh)
		}
		rules, zero := got.Spec.RuleSet().String(), printed(t, got.Spec) == printed(t, Spec{})
		if redirected := got.Verdict == Redirect; redirected == zero || redirected == (rules == "") {
			t.Errorf("%s: %s with settings %t and %d bytes of rules", test.name, got.Verdict, !zero, len(rules))
		}
	}
}

func TestEveryReasonHasACase(t *testing.T) {
	seen := map[Reason]int{}
	for _, test := range decisions {
		seen[test.reason]++
	}
	for _, reason := range Reasons {
		// Decide never returns these two: the first needs the kernel's rules, the second an agent that does not answer.
		if (seen[reason] == 0) != (reason == ReasonForeignRules || reason == ReasonAgentAway) {
			t.Errorf("%s: %d cases", reason, seen[reason])
		}
	}
	if names := declared(t, "decide.go", "Reason"); len(names) != len(Reasons) || len(seen) != len(Reasons)-2 {
		t.Errorf("%d reasons declared (%q), %d listed, %d seen", len(names), names, len(Reasons), len(seen))
	}
	unique := slices.Clone(Reasons)
	slices.Sort(unique)
	if len(slices.Compact(unique)) != len(Reasons) {
		t.Errorf("two reasons are the same word: %q", unique)
	}
}

// TestNamedLoopback has a loopback prefix inside another one: loopback is then captured, as in Istio, and the text of
// the setting still shows it.
func TestNamedLoopback(t *testing.T) {
	for text, captured := range map[string]bool{
		"0.0.0.0/0": false, "0.0.0.0/0,127.0.0.0/8": true, "127.0.0.1/32,0.0.0.0/0": true, "127.0.0.0/8,127.0.0.1/32": true,
	} {
		prefixes, err := ParsePrefixes(text)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePrefixes(prefixes.String())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []Prefixes{prefixes, again} {
			spec := DefaultSpec()
			spec.IncludeOutboundIPRanges = p
			set := RuleSet{Tables: slices.DeleteFunc(spec.RuleSet().Tables, func(t Table) bool {
				return t.Family == IPv6 || t.Kind != NAT
			})}
			if left := strings.Contains(set.String(), `oifname "lo" return`); left == captured {
				t.Errorf("%q: calls inside the pod are left alone: %t", text, left)
			}
		}
	}
}
