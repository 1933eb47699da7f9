package explain

import (
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Why a pod has no sidecar: which webhooks select it, and what the injector does by its settings.
func TestInjection(t *testing.T) {
	situations{
		"labelled": {plain, func(f *fake) { f.namespace.Labels["istio-injection"] = "enabled" },
			outcome.NotWell},
		"other-label": {plain, func(f *fake) { f.namespace.Labels["istio-injection"] = "disabled" }, outcome.Well},
		"no-injector": {plain, func(f *fake) { f.webhooks = f.webhooks[2:] }, outcome.Well},
		"never": {plain, func(f *fake) {
			f.namespace.Labels["istio-injection"], f.pod.Labels = "enabled", map[string]string{"job": "nightly"}
			f.injector = "policy: enabled\nneverInjectSelector:\n- matchLabels: {}\n- matchLabels: {job: nightly}\n"
		}, outcome.Well},
		"policy-disabled": {plain, func(f *fake) {
			f.namespace.Labels["istio-injection"], f.injector = "enabled", "policy: disabled\n"
		}, outcome.Well},
		"always": {plain, func(f *fake) {
			f.namespace.Labels["istio-injection"], f.pod.Labels = "enabled", map[string]string{"app": "cart"}
			f.injector = "policy: disabled\nalwaysInjectSelector:\n- matchExpressions: [{key: app, operator: Exists}]\n"
		}, outcome.NotWell},
		"no-injector-settings": {plain, func(f *fake) {
			f.namespace.Labels["istio-injection"], f.errs["injector"] = "enabled", forbidden("configmaps")
		}, outcome.NotWell},
	}.show(t)
}

// The injector's choice is that of Istio's code: the label before the annotation, neverInject before alwaysInject, and
// the policy for all others.
func TestInjector(t *testing.T) {
	const key = "sidecar.istio.io/inject"
	never := metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	always := metav1.LabelSelector{MatchLabels: map[string]string{"c": "d"}}
	with := func(policy string) injectorSettings {
		return injectorSettings{policy, []metav1.LabelSelector{{}, never}, []metav1.LabelSelector{{}, always}}
	}
	const isNever = "its neverInjectSelector has a=b, as the pod's labels are"
	const isAlways = "its alwaysInjectSelector has c=d, as the pod's labels are"
	type set = map[string]string
	for name, test := range map[string]struct {
		settings            injectorSettings
		labels, annotations set
		injects             bool
		why                 string
	}{
		"enabled":           {with("enabled"), nil, nil, true, "its policy is enabled"},
		"disabled":          {with("disabled"), nil, nil, false, "its policy is disabled"},
		"never":             {with("enabled"), set{"a": "b"}, nil, false, isNever},
		"always":            {with("disabled"), set{"c": "d"}, nil, true, isAlways},
		"never and always":  {with("enabled"), set{"a": "b", "c": "d"}, nil, false, isNever},
		"label":             {with("disabled"), set{key: "true", "a": "b"}, nil, true, key + " is true"},
		"annotation":        {with("disabled"), nil, set{key: "true"}, true, key + " is true"},
		"label first":       {with("enabled"), set{key: "false"}, set{key: "true"}, false, key + " is false"},
		"neither":           {with("enabled"), set{key: "yes"}, nil, true, "its policy is enabled"},
		"without selectors": {injectorSettings{Policy: "enabled"}, set{"a": "b"}, nil, true, "its policy is enabled"},
		"no such policy": {with("off"), set{key: "true"}, nil, false, `its policy is "off", by which it injects nothing; ` +
			"valid: enabled, disabled"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: test.labels, Annotations: test.annotations}}
		if injects, why := test.settings.of(pod); injects != test.injects || why != test.why {
			t.Errorf("%s: %t, %s", name, injects, why)
		}
	}
}
