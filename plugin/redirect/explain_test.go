package redirect

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// Explain returns Decide's decision for every case, and its answers fit: each question is asked once, in order, and
// only the last one ends the decision, with the decision's reason.
func TestExplainIsDecide(t *testing.T) {
	for _, test := range decisions {
		pod, policy := meshPod(test.edits...)
		want, wantErr := Decide(pod, policy)
		got, err := Explain(pod, policy)
		if !reflect.DeepEqual(got.Decision, want) || !reflect.DeepEqual(err, wantErr) {
			t.Errorf("%s: explained as %+v, %v; decided as %+v, %v", test.name, got.Decision, err, want, wantErr)
		}
		for _, problem := range answersProblems(got, policy) {
			t.Errorf("%s: %s", test.name, problem)
		}
		if redirected := got.Verdict == Redirect; redirected && len(got.Settings) != len(settings) ||
			!redirected && got.Settings != nil {
			t.Errorf("%s: %s with %d settings", test.name, got.Verdict, len(got.Settings))
		}
	}
}

// answersProblems returns what is wrong with the answers of a decision without an error.
func answersProblems(e Explanation, policy Policy) (problems []string) {
	var asked []Reason
	for i, a := range e.Answers {
		asked = append(asked, a.Reason)
		last := i == len(e.Answers)-1
		if ended := a.Verdict != ""; ended && !last || last && ended == (e.Verdict == Redirect) {
			problems = append(problems, string(a.Reason)+" ended it: "+string(a.Verdict))
		}
		if last && a.Verdict != "" && (a.Verdict != e.Verdict || a.Verdict == Untouched && a.Reason != e.Reason) {
			problems = append(problems, "ended as "+string(a.Reason)+", decided as "+string(e.Reason))
		}
	}
	var all []Reason
	for _, q := range questions {
		if q.only == "" || q.only == policy.Selection {
			all = append(all, q.reason)
		}
	}
	if !slices.Equal(asked, all[:len(asked)]) || e.Verdict == Redirect && len(asked) != len(all) {
		problems = append(problems, "asked "+strings.Join(texts(asked), ", "))
	}
	return problems
}

func texts(reasons []Reason) (all []string) {
	for _, r := range reasons {
		all = append(all, string(r))
	}
	return all
}

// The answer says where it was found.
func TestAnswersHaveOrigins(t *testing.T) {
	proxy := Origin{Kind: OfContainer, Of: ProxyContainer}
	for name, test := range map[string]struct {
		edits []edit
		about Reason
		want  Origin
	}{
		"no pod": {[]edit{func(p *Pod, _ *Policy) { p.Name = "" }}, ReasonNotKubernetes,
			Origin{Kind: OfRuntime, Name: "CNI_ARGS"}},
		"excluded": {[]edit{inNamespace("kube-system")}, ReasonNamespaceExcluded,
			Origin{Kind: OfConfig, Name: "excludeNamespaces"}},
		"opted out": {[]edit{annotate(annotation.Initialize, "0")}, ReasonOptedOut,
			Origin{OfAnnotation, "", annotation.Initialize, "0"}},
		"opted out by the namespace": {[]edit{bySelection, namespaceSays("false")}, ReasonOptedOut,
			Origin{OfNamespace, "shop", annotation.Initialize, "false"}},
		"unreadable": {[]edit{annotate(annotation.Initialize, "maybe")}, ReasonOptedOut,
			Origin{OfAnnotation, "", annotation.Initialize, "maybe"}},
		"the label wins": {[]edit{label("true"), annotate(annotation.SidecarInject, "false")}, ReasonInjectDisabled,
			Origin{OfLabel, "", annotation.SidecarInject, "true"}},
		"by annotation": {[]edit{annotate(annotation.SidecarInject, "false")}, ReasonInjectDisabled,
			Origin{OfAnnotation, "", annotation.SidecarInject, "false"}},
		"ambient": {[]edit{annotate(annotation.AmbientRedirection, "enabled")}, ReasonAmbient,
			Origin{OfAnnotation, "", annotation.AmbientRedirection, "enabled"}},
		"own init": {[]edit{initContainer(Container{Name: InitContainer, NetAdmin: true})}, ReasonOwnInit,
			Origin{OfContainer, InitContainer, "securityContext", "NET_ADMIN"}},
		"envoy": {[]edit{proxyEnv(EnvDisableEnvoy, "1")}, ReasonEnvoyDisabled,
			Origin{OfVariable, ProxyContainer, EnvDisableEnvoy, "1"}},
		"gateway": {[]edit{proxyArgs("proxy", "router")}, ReasonProxyType,
			Origin{OfContainer, ProxyContainer, "args", "router"}},
		"mode by the sidecar": {[]edit{proxyEnv(EnvMode, "NONE")}, ReasonModeNone,
			Origin{OfVariable, ProxyContainer, EnvMode, "NONE"}},
		"mode by the operator": {[]edit{modeNone}, ReasonModeNone, Origin{OfConfig, "", "redirect.mode", "NONE"}},
		"injected":             {nil, ReasonNotInjected, Origin{OfAnnotation, "", annotation.SidecarStatus, "{}"}},
		"not injected":         {[]edit{notInjected}, ReasonNotInjected, Origin{}},
		"opted in": {[]edit{annotate(annotation.Initialize, "true")}, ReasonNotInjected,
			Origin{OfAnnotation, "", annotation.Initialize, "true"}},
		"opted in by the namespace": {[]edit{bySelection, namespaceSays("true")}, ReasonNotOptedIn,
			Origin{OfNamespace, "shop", annotation.Initialize, "true"}},
		"a sidecar": {nil, ReasonNoProxy, proxy},
		"none":      {[]edit{withoutProxy}, ReasonNoProxy, Origin{}},
	} {
		pod, policy := meshPod(test.edits...)
		explained, _ := Explain(pod, policy)
		i := slices.IndexFunc(explained.Answers, func(a Answer) bool { return a.Reason == test.about })
		if i < 0 || explained.Answers[i].From != test.want {
			t.Errorf("%s: %+v, want %+v", name, explained.Answers, test.want)
		}
	}
}

// A decision changes if the source that ended it is removed.
func TestOriginsCount(t *testing.T) {
	gone := func(pod *Pod, from Origin) bool {
		switch from.Kind {
		case OfAnnotation:
			delete(pod.Annotations, from.Name)
		case OfLabel:
			delete(pod.Labels, from.Name)
		case OfNamespace:
			delete(pod.NamespaceAnnotations, from.Name)
		case OfVariable:
			delete(pod.proxy().Env, from.Name)
		default:
			return false
		}
		return true
	}
	tried := 0
	for _, test := range decisions {
		pod, policy := meshPod(test.edits...)
		before, err := Explain(pod, policy)
		last := before.Answers[len(before.Answers)-1]
		if err != nil || last.Verdict != Untouched || last.From.Value == "ture" || !gone(&pod, last.From) {
			continue // the pod's own answer makes the namespace's invalid value irrelevant
		}
		tried++
		if after, _ := Explain(pod, policy); after.Reason == before.Reason {
			t.Errorf("%s: without %+v it is still %s", test.name, last.From, after.Reason)
		}
	}
	if tried < 12 {
		t.Errorf("%d decisions were ended by what can be taken away", tried)
	}
}

// Each setting says where it was found: in the source that takes precedence.
func TestSettingsHaveOrigins(t *testing.T) {
	user := func(id int64) edit { return proxyEdit(func(c *Container) { c.RunAsUser = &id }) }
	config := func(name string) Origin { return Origin{Kind: OfConfig, Name: "redirect." + name} }
	for name, test := range map[string]struct {
		edits   []edit
		setting string
		value   any
		want    Origin
	}{
		"nothing said": {nil, "proxyUID", ID(1337), config("proxyUID")},
		"container": {[]edit{user(7)}, "proxyUID", ID(7),
			Origin{OfContainer, ProxyContainer, "securityContext.runAsUser", "7"}},
		"root": {[]edit{user(0)}, "proxyUID", ID(1337), config("proxyUID")},
		"pod": {[]edit{func(p *Pod, _ *Policy) { p.RunAsGroup = id(8) }}, "proxyGID", ID(8),
			Origin{OfPod, "", "securityContext.runAsGroup", "8"}},
		"annotation over container": {[]edit{user(7), annotate(annotation.EnvoyUserID, "9")}, "proxyUID", ID(9),
			Origin{OfAnnotation, "", annotation.EnvoyUserID, "9"}},
		"our annotation over Istio's": {[]edit{annotate(annotation.OwnExcludeOutboundPorts, "1",
			annotation.ExcludeOutboundPorts, "2")}, "excludeOutboundPorts", "1",
			Origin{OfAnnotation, "", annotation.OwnExcludeOutboundPorts, "1"}},
		"variable": {[]edit{proxyEnv(EnvDNSCapture, "true")}, "dnsCapture", true,
			Origin{OfVariable, ProxyContainer, EnvDNSCapture, "true"}},
		"the later of two variables": {[]edit{proxyEdit(func(c *Container) {
			c.Env = map[string]string{EnvDropInvalid: "true", EnvInvalidDrop: "false"}
		})}, "dropInvalid", false, Origin{OfVariable, ProxyContainer, EnvInvalidDrop, "false"}},
		"both families": {[]edit{proxyEnv(EnvDualStack, "true"), configured(t, `{"families": "proxy"}`)}, "families",
			CapturedAll, Origin{OfVariable, ProxyContainer, EnvDualStack, "true"}},
	} {
		pod, policy := meshPod(test.edits...)
		explained, err := Explain(pod, policy)
		i := slices.IndexFunc(explained.Settings, func(s Setting) bool { return s.Name == test.setting })
		if err != nil || i < 0 || explained.Settings[i] != (Setting{test.setting, test.value, test.want}) {
			t.Errorf("%s: %+v, %v", name, explained.Settings, err)
		}
	}
}

// For a pod that must not start, the explanation ends at the reason.
func TestExplainRefused(t *testing.T) {
	pod, policy := meshPod(annotate(annotation.Initialize, "maybe"))
	explained, err := Explain(pod, policy)
	last := explained.Answers[len(explained.Answers)-1]
	if !IsInvalid(err) || last.Err == nil || last.Reason != ReasonOptedOut || explained.Settings != nil {
		t.Errorf("%+v, %v", explained, err)
	}
	pod, policy = meshPod(annotate(annotation.ExcludeInboundPorts, "x"))
	if explained, err = Explain(pod, policy); !IsInvalid(err) || explained.Reason != ReasonInjected ||
		explained.Settings != nil {
		t.Errorf("%+v, %v", explained, err)
	}
	pod, policy = meshPod(func(p *Pod, _ *Policy) { p.RunAsUser = id(1337) })
	policy.SharedProxyUser = SharedRefuse
	if explained, err = Explain(pod, policy); !IsInvalid(err) || len(explained.Settings) != len(settings) {
		t.Errorf("%+v, %v", explained, err)
	}
}
