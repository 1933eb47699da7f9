package redirect

import (
	"slices"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// causes has, for each reason to leave a pod untouched, an edit that causes it, in the documented order.
var causes = []struct {
	reason Reason
	edits  []edit
}{
	{ReasonNotKubernetes, []edit{func(p *Pod, _ *Policy) { p.Name = "" }}},
	{ReasonNamespaceExcluded, []edit{func(_ *Pod, policy *Policy) { policy.ExcludeNamespaces = Globs{"*"} }}},
	{ReasonOpenShiftDeployer, []edit{annotate(annotation.OpenShiftDeployer, "x")}},
	{ReasonOpenShiftBuild, []edit{annotate(annotation.OpenShiftBuild, "x")}},
	{ReasonOptedOut, []edit{annotate(annotation.Initialize, "false")}},
	{ReasonInjectDisabled, []edit{label("false")}},
	{ReasonAmbient, []edit{annotate(annotation.AmbientRedirection, "enabled")}},
	{ReasonOwnInit, []edit{initContainer(Container{Name: InitContainer, NetAdmin: true})}},
	{ReasonEnvoyDisabled, []edit{proxyEnv(EnvDisableEnvoy, "true")}},
	{ReasonProxyType, []edit{proxyArgs("proxy", "router")}},
	{ReasonModeNone, []edit{annotate(annotation.InterceptionMode, "NONE")}},
	{ReasonNotInjected, []edit{notInjected}},
	{ReasonNotOptedIn, []edit{bySelection}},
	{ReasonNoProxy, []edit{withoutProxy}},
}

// exclusive lists pairs of reasons that exclude each other: a pod without a proxy cannot have a disabled one, and there
// is only one selection.
var exclusive = [][2]Reason{
	{ReasonEnvoyDisabled, ReasonNoProxy}, {ReasonProxyType, ReasonNoProxy}, {ReasonNotInjected, ReasonNotOptedIn},
}

func TestOrderOfReasons(t *testing.T) {
	pairs := 0
	for i, first := range causes {
		if pod, policy := meshPod(first.edits...); reasonOf(t, pod, policy) != first.reason {
			t.Errorf("%s alone: %s", first.reason, reasonOf(t, pod, policy))
		}
		for _, second := range causes[i+1:] {
			if slices.Contains(exclusive, [2]Reason{first.reason, second.reason}) {
				continue
			}
			pairs++
			for _, edits := range [][]edit{slices.Concat(first.edits, second.edits), slices.Concat(second.edits, first.edits)} {
				if pod, policy := meshPod(edits...); reasonOf(t, pod, policy) != first.reason {
					t.Errorf("%s and %s: %s", first.reason, second.reason, reasonOf(t, pod, policy))
				}
			}
		}
	}
	if want := len(causes)*(len(causes)-1)/2 - len(exclusive); pairs != want {
		t.Errorf("%d pairs of %d", pairs, want)
	}
}

func reasonOf(t *testing.T, pod Pod, policy Policy) Reason {
	t.Helper()
	got, err := Decide(pod, policy)
	if err != nil {
		t.Error(err)
	}
	return got.Reason
}

// Reasons has the same order, followed by the reasons that leave no pod untouched.
func TestReasonsAreListedInOrder(t *testing.T) {
	var want []Reason
	for _, c := range causes {
		want = append(want, c.reason)
	}
	want = append(want, ReasonForeignRules, ReasonAgentAway, ReasonInjected, ReasonOptedIn, ReasonIncomplete)
	if !slices.Equal(Reasons, want) {
		t.Errorf("got %q, want %q", Reasons, want)
	}
}

// Without annotations only the questions about CNI_ARGS come before the verdict Ask.
func TestAskingComesFirst(t *testing.T) {
	for i, c := range causes {
		pod, policy := meshPod(append(c.edits, unknownAnnotations, runtimeOnly)...)
		want := ReasonIncomplete
		if i < 2 {
			want = c.reason
		}
		if got := reasonOf(t, pod, policy); got != want {
			t.Errorf("%s, annotations unknown: %s, want %s", c.reason, got, want)
		}
	}
}

// The agent's answer does not change an earlier decision, except by facts that only the agent knows.
func TestAnswerConfirmsEarlyDecision(t *testing.T) {
	for _, test := range decisions {
		pod, policy := meshPod(test.edits...)
		early := pod
		runtimeOnly(&early, nil)
		policy.Agent = true
		got, err := Decide(early, policy)
		if err != nil || got.Verdict != Untouched {
			continue
		}
		if full, err := Decide(pod, policy); err != nil || full.Verdict != Untouched {
			t.Errorf("%s: early %s, then %s %s, %v", test.name, got.Reason, full.Verdict, full.Reason, err)
		}
	}
}
