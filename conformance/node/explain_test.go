package node

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// notExplained are the reasons that do not follow from a pod's object.
var notExplained = map[redirect.Reason]string{
	redirect.ReasonNotKubernetes: "there is no pod",
	redirect.ReasonForeignRules:  "they are in the pod's network namespace",
	redirect.ReasonAgentAway:     "it is about the agent",
	redirect.ReasonIncomplete:    "it is no verdict",
}

// The operator's tool explains for each pod what ADD does: for every reason, with pods that the API server has admitted
// and that the agent knows.
func TestExplainAgreesWithADD(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	r.ready()
	seen := map[redirect.Reason]bool{}
	for name, test := range map[string]struct {
		reason      redirect.Reason // "" if ADD fails
		annotations map[string]string
		entry       map[string]any // added to the rig's
		change      func(*corev1.Pod)
	}{
		"injected": {reason: redirect.ReasonInjected, annotations: meshAnnotations()},
		"opted-in": {reason: redirect.ReasonOptedIn, annotations: with(meshAnnotations(),
			"istio-pod-network-controller/initialize", "true")},
		"not-injected": {reason: redirect.ReasonNotInjected},
		"excluded": {reason: redirect.ReasonNamespaceExcluded, annotations: meshAnnotations(),
			entry: map[string]any{"excludeNamespaces": []string{"shop-*"}}},
		"deployer": {reason: redirect.ReasonOpenShiftDeployer, annotations: with(meshAnnotations(),
			"openshift.io/deployer-pod-for.name", "cart-1")},
		"build": {reason: redirect.ReasonOpenShiftBuild, annotations: with(meshAnnotations(),
			"openshift.io/build.name", "x")},
		"opted-out": {reason: redirect.ReasonOptedOut, annotations: with(meshAnnotations(),
			"istio-pod-network-controller/initialize", "false")},
		"label": {reason: redirect.ReasonInjectDisabled, annotations: meshAnnotations(),
			change: func(p *corev1.Pod) { p.Labels = map[string]string{"sidecar.istio.io/inject": "false"} }},
		"ambient": {reason: redirect.ReasonAmbient, annotations: with(meshAnnotations(), "ambient.istio.io/redirection",
			"enabled")},
		"own-init": {reason: redirect.ReasonOwnInit, annotations: meshAnnotations(), change: func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "istio-init", Image: "i", SecurityContext: &corev1.SecurityContext{
				Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}}}
		}},
		"envoy": {reason: redirect.ReasonEnvoyDisabled, annotations: meshAnnotations(), change: func(p *corev1.Pod) {
			p.Spec.Containers[1].Env = []corev1.EnvVar{{Name: "DISABLE_ENVOY", Value: "true"}}
		}},
		"gateway": {reason: redirect.ReasonProxyType, annotations: meshAnnotations(),
			change: func(p *corev1.Pod) { p.Spec.Containers[1].Args = []string{"proxy", "router"} }},
		"mode": {reason: redirect.ReasonModeNone, annotations: meshAnnotations(), change: func(p *corev1.Pod) {
			p.Spec.Containers[1].Env = []corev1.EnvVar{{Name: "ISTIO_META_INTERCEPTION_MODE", Value: "NONE"}}
		}},
		"no-proxy": {reason: redirect.ReasonNoProxy, annotations: meshAnnotations(),
			change: func(p *corev1.Pod) { p.Spec.Containers = p.Spec.Containers[:1] }},
		"not-opted-in": {reason: redirect.ReasonNotOptedIn, annotations: meshAnnotations(),
			entry: map[string]any{"selection": "annotated"}},
		"unreadable": {annotations: with(meshAnnotations(), "istio-pod-network-controller/initialize", "perhaps")},
		"settings":   {annotations: with(meshAnnotations(), "traffic.sidecar.istio.io/includeInboundPorts", "http")},
		"shared": {annotations: meshAnnotations(), entry: map[string]any{"sharedProxyUser": "refuse"},
			change: func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.RunAsUser = new(int64(1337)) }},
	} {
		pod := r.podOf(name, test.annotations)
		if test.change != nil {
			test.change(pod)
		}
		pod = r.create(pod)
		s := r.sandbox(pod)
		entry := map[string]any{}
		for _, part := range []map[string]any{r.entry, test.entry} {
			for key, value := range part {
				entry[key] = value
			}
		}
		verdict, reason := s.decided(entry)
		if reason != test.reason {
			t.Errorf("%s: ADD has decided %s because %q, want %q", name, verdict, reason, test.reason)
		}
		said, because := r.explained(pod, entry)
		if said != verdict || verdict != "refused" && because != reason {
			t.Errorf("%s: ADD: %s (%s); explained: %s (%s)", name, verdict, reason, said, because)
		}
		seen[reason] = true
	}
	for _, reason := range redirect.Reasons {
		if _, unknowable := notExplained[reason]; unknowable == seen[reason] {
			t.Errorf("%s: has been decided: %t", reason, seen[reason])
		}
	}
}

// with adds an annotation.
func with(annotations map[string]string, key, value string) map[string]string {
	annotations[key] = value
	return annotations
}

// decided runs ADD and returns its verdict in the tool's words, and its reason, both from its log.
func (s *podSandbox) decided(entry map[string]any) (verdict string, reason redirect.Reason) {
	s.Helper()
	cmd, err := s.Command("ADD", entry)
	must(s, err)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Run(); err != nil {
		return "refused", ""
	}
	said := regexp.MustCompile(`decision=(\S+) .*reason=(\S+)`).FindSubmatch(log.Bytes())
	if said == nil {
		s.Fatalf("the log of ADD is %q", log.String())
	}
	verdict = map[string]string{"redirect": "redirected", "untouched": "untouched"}[string(said[1])]
	return verdict, redirect.Reason(said[2])
}

// question is one question in the tool's answer.
type question struct {
	Reason redirect.Reason
	Ends   bool
}

// explained runs the tool on the pod as the API server has it.
func (r *rig) explained(pod *corev1.Pod, entry map[string]any) (verdict string, reason redirect.Reason) {
	r.Helper()
	file := r.path("explained-entry.json")
	data, err := json.Marshal(entry)
	must(r, err)
	must(r, os.WriteFile(file, data, 0o600))
	pod = pod.DeepCopy()
	pod.APIVersion, pod.Kind = "v1", "Pod"
	manifest, err := json.Marshal(pod)
	must(r, err)
	cmd := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-networkctl"), "explain", "-f", "-", "-o", "json",
		"--config", file)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(manifest), &stderr
	out, _ := cmd.Output()
	if status := cmd.ProcessState.ExitCode(); status > 1 {
		r.Fatalf("explain: status %d: %s", status, stderr.String())
	}
	var list struct {
		Items []struct {
			Verdict   string
			Reason    redirect.Reason
			Questions []question
		}
	}
	must(r, json.Unmarshal(out, &list))
	if len(list.Items) != 1 {
		r.Fatalf("explained: %s", out)
	}
	item := list.Items[0]
	last := item.Questions[len(item.Questions)-1]
	earlier := item.Questions[:len(item.Questions)-1]
	if item.Verdict == "untouched" && (!last.Ends || last.Reason != item.Reason) ||
		slices.ContainsFunc(earlier, func(q question) bool { return q.Ends }) {
		r.Errorf("%s: where it stopped is wrong: %s", pod.Name, out)
	}
	return item.Verdict, item.Reason
}
