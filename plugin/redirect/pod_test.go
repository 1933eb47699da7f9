package redirect

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

func proxyRuns(uid, gid *int64) edit {
	return proxyEdit(func(c *Container) { c.RunAsUser, c.RunAsGroup = uid, gid })
}

func podRuns(uid, gid *int64) edit {
	return func(p *Pod, _ *Policy) { p.RunAsUser, p.RunAsGroup = uid, gid }
}

// The settings of a redirected pod, as changes to the documented defaults.
func TestSettingsOfThePod(t *testing.T) {
	for _, test := range []struct {
		name  string
		edits []edit
		want  string
	}{
		{"nothing said", nil, `{}`},
		{"ids of the container", []edit{proxyRuns(id(2001), id(2002))}, `{"proxyUID":2001,"proxyGID":2002}`},
		{"ids of the pod", []edit{podRuns(id(3001), id(3002))}, `{"proxyUID":3001,"proxyGID":3002}`},
		{"each ID by itself", []edit{proxyRuns(id(2001), nil), podRuns(id(3001), id(3002))},
			`{"proxyUID":2001,"proxyGID":3002}`},
		{"the largest ID", []edit{proxyRuns(id(4294967294), id(4294967294))},
			`{"proxyUID":4294967294,"proxyGID":4294967294}`},
		{"root keeps the default", []edit{proxyRuns(id(0), id(1337))}, `{}`},
		{"root overrules the pod's uid", []edit{proxyRuns(id(0), id(0)), podRuns(id(3001), id(3002))}, `{}`},
		{"root keeps the configured default", []edit{configured(t, `{"proxyUID":7,"proxyGID":8}`), proxyRuns(id(0), id(0))},
			`{"proxyUID":7,"proxyGID":8}`},
		{"TPROXY as Istio injects it", []edit{annotate(annotation.InterceptionMode, "TPROXY"), proxyRuns(id(0), id(1337))},
			`{"mode":"TPROXY"}`},
		{"ids of a native sidecar", []edit{proxyRuns(id(2001), id(2002)), nativeSidecar},
			`{"proxyUID":2001,"proxyGID":2002}`},
		{"ids of the app do not count", []edit{func(p *Pod, _ *Policy) { p.Containers[0].RunAsUser = id(9) }}, `{}`},
		{"a regular sidecar before one in init", []edit{proxyRuns(id(2001), nil),
			initContainer(Container{Name: ProxyContainer, RunAsUser: id(9)})}, `{"proxyUID":2001}`},

		{"DNS", []edit{proxyEnv(EnvDNSCapture, "true")}, `{"dnsCapture":true}`},
		{"DNS, 1", []edit{proxyEnv(EnvDNSCapture, "1")}, `{"dnsCapture":true}`},
		{"no DNS although configured", []edit{configured(t, `{"dnsCapture":true}`), proxyEnv(EnvDNSCapture, "false")},
			`{}`},
		{"DNS configured", []edit{configured(t, `{"dnsCapture":true}`)}, `{"dnsCapture":true}`},
		{"DNS unreadable is false", []edit{configured(t, `{"dnsCapture":true}`), proxyEnv(EnvDNSCapture, "yes")}, `{}`},
		{"DNS empty is false", []edit{configured(t, `{"dnsCapture":true}`), proxyEnv(EnvDNSCapture, "")}, `{}`},
		{"invalid", []edit{proxyEnv(EnvInvalidDrop, "true")}, `{"dropInvalid":true}`},
		{"invalid, not although configured", []edit{configured(t, `{"dropInvalid":true}`), proxyEnv(EnvInvalidDrop, "0")},
			`{}`},
		{"invalid, by the init container's name", []edit{proxyEnv(EnvDropInvalid, "true")}, `{"dropInvalid":true}`},
		{"invalid, both names", []edit{proxyEdit(func(c *Container) {
			c.Env = map[string]string{EnvDropInvalid: "true", EnvInvalidDrop: "false"}
		})}, `{}`},
		{"mode of the sidecar", []edit{proxyEnv(EnvMode, "TPROXY")}, `{"mode":"TPROXY"}`},
		{"mode of the sidecar over the configuration", []edit{configured(t, `{"mode":"TPROXY"}`),
			proxyEnv(EnvMode, "REDIRECT")}, `{}`},
		{"the pod overrules its sidecar's mode", []edit{proxyEnv(EnvMode, "x"),
			annotate(annotation.InterceptionMode, "TPROXY")}, `{"mode":"TPROXY"}`},
		{"groups", []edit{proxyEdit(func(c *Container) {
			c.Env = map[string]string{EnvIncludeGroups: "7,1000", EnvExcludeGroups: "5"}
		})}, `{"includeOutboundOwnerGroups":"7,1000","excludeOutboundOwnerGroups":"5"}`},
		{"groups of the pod over those of the sidecar", []edit{proxyEnv(EnvExcludeGroups, "x"),
			annotate(annotation.OwnExcludeOutboundOwnerGroups, "1338")}, `{"excludeOutboundOwnerGroups":"1338"}`},
		{"environment of the app does not count", []edit{func(p *Pod, _ *Policy) {
			p.Containers[0].Env = map[string]string{EnvDNSCapture: "true", EnvInvalidDrop: "true", EnvMode: "TPROXY"}
		}}, `{}`},

		{"2018", []edit{annotate(annotation.EnvoyPort, "16001", annotation.EnvoyUserID, "7", annotation.EnvoyGroupID, "8")},
			`{"outboundPort":16001,"proxyUID":7,"proxyGID":8}`},
		{"2018 over the container", []edit{proxyRuns(id(2001), id(2002)),
			annotate(annotation.EnvoyUserID, "7", annotation.EnvoyGroupID, "0")},
			`{"proxyUID":7,"proxyGID":0}`},
		{"empty lists are lists", []edit{annotate(annotation.IncludeOutboundIPRanges, "", annotation.IncludeInboundPorts,
			"")},
			`{"includeOutboundIPRanges":"","includeInboundPorts":""}`},
		{"no agent: the configuration stands for the container", []edit{annotate(annotation.ExcludeOutboundPorts, "25"),
			configured(t, `{"dnsCapture":true,"proxyUID":7}`), runtimeOnly, withoutAgent},
			`{"excludeOutboundPorts":"25","dnsCapture":true,"proxyUID":7}`},
	} {
		pod, policy := meshPod(test.edits...)
		got, err := Decide(pod, policy)
		if want := printed(t, spec(t, test.want)); err != nil || got.Verdict != Redirect || printed(t, got.Spec) != want {
			t.Errorf("%s: %s %s, %v\n got %s\nwant %s", test.name, got.Verdict, got.Reason, err, printed(t, got.Spec), want)
		}
	}
}

func TestDecideErrors(t *testing.T) {
	for _, test := range []struct {
		name  string
		edits []edit
		says  []string
	}{
		{"initialize", []edit{annotate(annotation.Initialize, "yes")}, []string{"annotation " + annotation.Initialize,
			`"yes"`, "true or false"}},
		{"initialize, empty", []edit{noAnnotations, annotate(annotation.Initialize, "")},
			[]string{annotation.Initialize, `""`}},
		{"initialize of the namespace", []edit{bySelection, namespaceSays("maybe")},
			[]string{"annotation of namespace shop " + annotation.Initialize, `"maybe"`}},
		{"runAsUser", []edit{proxyRuns(id(-1), nil)}, []string{"istio-proxy securityContext.runAsUser", `"-1"`,
			"0 to 4294967294"}},
		{"runAsUser of the pod", []edit{podRuns(id(1<<32-1), nil)}, []string{"runAsUser", `"4294967295"`}},
		{"runAsGroup", []edit{proxyRuns(nil, id(1<<40))}, []string{"runAsGroup", `"1099511627776"`}},
		{"envoy-userid 0", []edit{annotate(annotation.EnvoyUserID, "0")}, []string{"annotation " + annotation.EnvoyUserID,
			`"0"`, "root"}},
		{"mode", []edit{annotate(annotation.InterceptionMode, "none")}, []string{"annotation " +
			annotation.InterceptionMode,
			`"none"`}},
		{"mode of the sidecar", []edit{proxyEnv(EnvMode, "tproxy")}, []string{"container istio-proxy env " + EnvMode,
			`"tproxy"`, "REDIRECT, TPROXY or NONE"}},
		{"groups by name", []edit{proxyEnv(EnvExcludeGroups, "root")}, []string{
			"container istio-proxy env " + EnvExcludeGroups, `"root"`, "group IDs"}},
		{"no agent", []edit{annotate(annotation.ExcludeInboundPorts, "*"), runtimeOnly, withoutAgent},
			[]string{annotation.ExcludeInboundPorts, `"*"`}},
	} {
		got, err := Decide(meshPod(test.edits...))
		wantInvalid(t, err, test.says...)
		want := Redirect // everything else shows that it is in the mesh
		if strings.HasPrefix(test.name, "initialize") {
			want = ""
		}
		if got.Verdict != want || printed(t, got.Spec) != printed(t, Spec{}) {
			t.Errorf("%s: beside the error %+v, want the verdict %q", test.name, got, want)
		}
	}
}

// An invalid value matters only for a mesh pod.
func TestInvalidValuesOfOthersDoNotMatter(t *testing.T) {
	garbage := annotate(annotation.InterceptionMode, "x", annotation.ExcludeInboundPorts, "x", annotation.EnvoyUserID,
		"x")
	for _, c := range causes {
		edits := append([]edit{garbage, proxyRuns(id(-1), nil)}, c.edits...)
		pod, policy := meshPod(edits...)
		if got, err := Decide(pod, policy); err != nil || got.Verdict != Untouched {
			t.Errorf("%s: %+v, %v", c.reason, got, err)
		}
	}
	// Only the opt-in of a namespace can be invalid, and the selection injected does not read it.
	if got, err := Decide(meshPod(namespaceSays("maybe"))); err != nil || got.Reason != ReasonInjected {
		t.Errorf("namespace: %+v, %v", got, err)
	}
	if got, err := Decide(meshPod(bySelection, annotate(annotation.Initialize, "true"),
		namespaceSays("maybe"))); err != nil || got.Reason != ReasonOptedIn {
		t.Errorf("namespace of a pod with its own answer: %+v, %v", got, err)
	}
}

// keyEffects has the effect of every annotation, label and variable that is read.
var keyEffects = map[string]struct {
	before, with []edit
}{
	"SidecarStatus":                 {[]edit{notInjected}, []edit{annotate(annotation.SidecarStatus, "{}")}},
	"SidecarInject":                 {nil, []edit{annotate(annotation.SidecarInject, "false")}},
	"InterceptionMode":              {nil, []edit{annotate(annotation.InterceptionMode, "TPROXY")}},
	"IncludeOutboundIPRanges":       {nil, []edit{annotate(annotation.IncludeOutboundIPRanges, "10.0.0.0/8")}},
	"ExcludeOutboundIPRanges":       {nil, []edit{annotate(annotation.ExcludeOutboundIPRanges, "10.0.0.0/8")}},
	"IncludeInboundPorts":           {nil, []edit{annotate(annotation.IncludeInboundPorts, "80")}},
	"ExcludeInboundPorts":           {nil, []edit{annotate(annotation.ExcludeInboundPorts, "80")}},
	"IncludeOutboundPorts":          {nil, []edit{annotate(annotation.IncludeOutboundPorts, "80")}},
	"ExcludeOutboundPorts":          {nil, []edit{annotate(annotation.ExcludeOutboundPorts, "80")}},
	"ExcludeInterfaces":             {nil, []edit{annotate(annotation.ExcludeInterfaces, "net1")}},
	"KubevirtInterfaces":            {nil, []edit{annotate(annotation.KubevirtInterfaces, "tap0")}},
	"RerouteVirtualInterfaces":      {nil, []edit{annotate(annotation.RerouteVirtualInterfaces, "tap0")}},
	"OwnIncludeInboundPorts":        {nil, []edit{annotate(annotation.OwnIncludeInboundPorts, "1-9")}},
	"OwnExcludeInboundPorts":        {nil, []edit{annotate(annotation.OwnExcludeInboundPorts, "1-9")}},
	"OwnIncludeOutboundPorts":       {nil, []edit{annotate(annotation.OwnIncludeOutboundPorts, "1-9")}},
	"OwnExcludeOutboundPorts":       {nil, []edit{annotate(annotation.OwnExcludeOutboundPorts, "1-9")}},
	"OwnExcludeInterfaces":          {nil, []edit{annotate(annotation.OwnExcludeInterfaces, "net2")}},
	"OwnRerouteVirtualInterfaces":   {nil, []edit{annotate(annotation.OwnRerouteVirtualInterfaces, "tap2")}},
	"OwnIncludeOutboundOwnerGroups": {nil, []edit{annotate(annotation.OwnIncludeOutboundOwnerGroups, "7")}},
	"OwnExcludeOutboundOwnerGroups": {nil, []edit{annotate(annotation.OwnExcludeOutboundOwnerGroups, "7")}},
	"EnvIncludeGroups":              {nil, []edit{proxyEnv(EnvIncludeGroups, "7")}},
	"EnvExcludeGroups":              {nil, []edit{proxyEnv(EnvExcludeGroups, "7")}},
	"AmbientRedirection":            {nil, []edit{annotate(annotation.AmbientRedirection, "enabled")}},
	"Initialize":                    {[]edit{notInjected}, []edit{annotate(annotation.Initialize, "true")}},
	"EnvoyPort":                     {nil, []edit{annotate(annotation.EnvoyPort, "16001")}},
	"EnvoyUserID":                   {nil, []edit{annotate(annotation.EnvoyUserID, "7")}},
	"EnvoyGroupID":                  {nil, []edit{annotate(annotation.EnvoyGroupID, "7")}},
	"OpenShiftDeployer":             {nil, []edit{annotate(annotation.OpenShiftDeployer, "x")}},
	"OpenShiftBuild":                {nil, []edit{annotate(annotation.OpenShiftBuild, "x")}},
	"EnvDNSCapture":                 {nil, []edit{proxyEnv(EnvDNSCapture, "true")}},
	"EnvInvalidDrop":                {nil, []edit{proxyEnv(EnvInvalidDrop, "true")}},
	"EnvDropInvalid":                {nil, []edit{proxyEnv(EnvDropInvalid, "true")}},
	"EnvDualStack":                  {[]edit{byProxy}, []edit{byProxy, proxyEnv(EnvDualStack, "true")}},
	"EnvMode":                       {nil, []edit{proxyEnv(EnvMode, "TPROXY")}},
	"EnvDisableEnvoy":               {nil, []edit{proxyEnv(EnvDisableEnvoy, "true")}},
}

// synonyms are keys with the same meaning as another.
var synonyms = map[string]string{"KubevirtInterfaces": "RerouteVirtualInterfaces", "EnvDropInvalid": "EnvInvalidDrop",
	"EnvMode": "InterceptionMode", "EnvIncludeGroups": "OwnIncludeOutboundOwnerGroups",
	"EnvExcludeGroups": "OwnExcludeOutboundOwnerGroups"}

// byProxy sets families: proxy.
func byProxy(_ *Pod, policy *Policy) {
	policy.Redirect.Families, policy.Redirect.DNSPort = CapturedProxy, 99
}

func TestDualStack(t *testing.T) {
	for _, test := range []struct {
		edits       []edit
		dual, known bool
	}{
		{nil, false, true}, {[]edit{proxyEnv(EnvDualStack, "true")}, true, true},
		{[]edit{proxyEnv(EnvDualStack, "1"), nativeSidecar}, true, true},
		{[]edit{proxyEnv(EnvDualStack, "false")}, false, true}, {[]edit{proxyEnv(EnvDualStack, "yes")}, false, true},
		{[]edit{withoutProxy}, false, false}, {[]edit{unresolved(EnvDualStack)}, false, false},
		{[]edit{unresolved(EnvMode)}, false, true},
	} {
		pod, _ := meshPod(test.edits...)
		if dual, known := pod.DualStack(); dual != test.dual || known != test.known {
			t.Errorf("%+v: %t, known: %t", pod.Containers, dual, known)
		}
	}
}

// Others keep only the variables in ProxyVariables, so it must have all that are read.
func TestProxyVariables(t *testing.T) {
	if names := declared(t, "proxy.go", "Env"); len(names) != len(ProxyVariables) {
		t.Errorf("variables %q, listed %q", names, ProxyVariables)
	}
	unique := slices.Clone(ProxyVariables)
	slices.Sort(unique)
	if len(slices.Compact(unique)) != len(ProxyVariables) {
		t.Errorf("twice: %q", ProxyVariables)
	}
}

func TestEveryKeyMatters(t *testing.T) {
	names := append(declared(t, "../annotation/input.go", ""), declared(t, "proxy.go", "Env")...)
	slices.Sort(names)
	if got := sortedKeys(keyEffects); !slices.Equal(got, names) {
		t.Errorf("effects of %q, keys %q", got, names)
	}
	outcome := func(edits ...edit) string {
		got, err := Decide(meshPod(edits...))
		return fmt.Sprint(got.Verdict, got.Reason, err, printed(t, got.Spec), got.Spec.RuleSet().Hash())
	}
	seen := map[string]string{}
	for name, effect := range keyEffects {
		before, with := outcome(effect.before...), outcome(append(effect.before, effect.with...)...)
		if before == with {
			t.Errorf("%s changes nothing: %s", name, with)
		}
		if other, twice := seen[with]; twice && synonyms[name] != other && synonyms[other] != name {
			t.Errorf("%s does what %s does: %s", name, other, with)
		}
		seen[with] = name
	}
}

// A pod with an annotation of the mesh was meant for it, whatever the value is. A deployer or build pod was not.
func TestMeshAnnotated(t *testing.T) {
	no := []string{annotation.OpenShiftDeployer, annotation.OpenShiftBuild, "example.com/x", "sidecar.istio.io/other",
		"status"}
	yes := []string{annotation.SidecarStatus, annotation.SidecarInject, annotation.AmbientRedirection,
		annotation.Initialize, annotation.TrafficPrefix + "other", annotation.ControllerPrefix + "other"}
	for _, s := range settings {
		yes = append(yes, s.annotations...)
	}
	if keys := declared(t, "../annotation/input.go", ""); len(keys) != len(yes) { // two invented, without OpenShift's
		t.Errorf("%d keys, %d looked at: %q", len(keys), len(yes), keys)
	}
	for _, key := range append(yes, no...) {
		pod, policy := meshPod(noAnnotations, annotate(key, ""), excluding("*"))
		if got, err := Decide(pod, policy); err != nil || got.MeshAnnotated == slices.Contains(no, key) {
			t.Errorf("%s: %+v, %v", key, got, err)
		}
	}
}

// A Pod's JSON form is the answer on the agent's socket, in which absent and empty annotations differ.
func TestPodJSON(t *testing.T) {
	for want, pod := range map[string]Pod{
		`{"namespace":"a","name":"b","annotations":null}`: {Namespace: "a", Name: "b"},
		`{"namespace":"","name":"","uid":"c","annotations":{},"complete":true,"runAsUser":0,` +
			`"containers":[{"name":"istio-proxy","args":["proxy"],"env":{"A":""},"runAsGroup":0,"netAdmin":true}]}`: {
			UID: "c", Annotations: map[string]string{}, Complete: true, RunAsUser: id(0),
			Containers: []Container{{Name: ProxyContainer, Args: []string{"proxy"}, Env: map[string]string{"A": ""},
				RunAsGroup: id(0), NetAdmin: true}},
		},
	} {
		encoded, err := json.Marshal(pod)
		var decoded Pod
		if err != nil || string(encoded) != want || json.Unmarshal(encoded, &decoded) != nil ||
			!reflect.DeepEqual(decoded, pod) {
			t.Errorf("got %s, %v, want %s, back %+v", encoded, err, want, decoded)
		}
	}
}

// Decide does not change its input: the agent answers many questions from one cached pod.
func TestDecideLeavesItsInputAlone(t *testing.T) {
	for _, test := range decisions {
		pod, policy := meshPod(test.edits...)
		before := fmt.Sprintf("%#v %#v", pod, printed(t, policy.Redirect))
		first, err := Decide(pod, policy)
		second, again := Decide(pod, policy)
		if err != nil || again != nil || !reflect.DeepEqual(first, second) {
			t.Errorf("%s: %+v, %v, then %+v, %v", test.name, first, err, second, again)
		}
		_ = first.Spec.RuleSet().String()
		if after := fmt.Sprintf("%#v %#v", pod, printed(t, policy.Redirect)); after != before {
			t.Errorf("%s: changed\n from %s\n to %s", test.name, before, after)
		}
	}
}
