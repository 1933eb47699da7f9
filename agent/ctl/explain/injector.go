package explain

import (
	"cmp"
	"context"
	"fmt"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Injector is what Istio's injector does, by its own settings, with a pod that its webhook selects.
type Injector struct {
	ConfigMap string `json:"configMap"` // NAMESPACE/NAME of the settings
	Injects   bool   `json:"injects"`
	Why       string `json:"why"`
}

// injector has an injector's settings, or why they are not known.
type injector struct {
	injectorSettings

	err error
}

// injectorSettings are the settings that choose pods. Source: Config in istio/istio, pkg/kube/inject/inject.go.
type injectorSettings struct {
	Policy string                 `json:"policy"`
	Never  []metav1.LabelSelector `json:"neverInjectSelector"`
	Always []metav1.LabelSelector `json:"alwaysInjectSelector"`
}

// readInjector stores what the injector behind a webhook does with the pod.
func (a *asker) readInjector(ctx context.Context, l *Live, w *Webhook, pod *corev1.Pod) {
	if w.namespace == "" {
		l.NotLookedAt = append(l.NotLookedAt, fmt.Sprintf("settings of the injector behind %s of %s, which is outside of "+
			"this cluster", w.Name, w.Configuration))
		return
	}
	name := cluster.InjectorMap(w.Revision)
	full := w.namespace + "/" + name
	its, known := a.injectors[full]
	if !known {
		config, err := a.from.ConfigMap(ctx, w.namespace, name)
		if its.err = err; err == nil {
			its.err = yaml.Unmarshal([]byte(config.Data["config"]), &its.injectorSettings)
		}
		if a.injectors == nil {
			a.injectors = map[string]injector{}
		}
		a.injectors[full] = its
	}
	if its.err != nil {
		l.miss("settings of Istio's injector, ConfigMap "+full, "the verb get on configmaps in "+w.namespace, its.err)
		return
	}
	w.Injector = &Injector{ConfigMap: full}
	w.Injector.Injects, w.Injector.Why = its.of(pod)
}

// of reports whether the injector adds a sidecar to the pod, and why. Source: injectRequired in istio/istio,
// pkg/kube/inject/inject.go.
func (s injectorSettings) of(pod *corev1.Pod) (injects bool, why string) {
	policy := "its policy is " + s.Policy
	if s.Policy != "enabled" && s.Policy != "disabled" {
		return false, fmt.Sprintf("its policy is %q, by which it injects nothing; valid: enabled, disabled", s.Policy)
	}
	said, labelled := pod.Labels[annotation.SidecarInject]
	if !labelled {
		said = pod.Annotations[annotation.SidecarInject]
	}
	if said == "true" || said == "false" {
		return said == "true", annotation.SidecarInject + " is " + said
	}
	if why := matched("neverInjectSelector", s.Never, pod.Labels); why != "" {
		return false, why
	}
	if why := matched("alwaysInjectSelector", s.Always, pod.Labels); why != "" {
		return true, why
	}
	return s.Policy == "enabled", policy
}

// matched returns which of the selectors match the labels, "" for none. Like Istio, it ignores empty and invalid
// selectors.
func matched(name string, selectors []metav1.LabelSelector, has map[string]string) string {
	for i := range selectors {
		s, err := metav1.LabelSelectorAsSelector(&selectors[i])
		if err == nil && !s.Empty() && s.Matches(labels.Set(has)) {
			return fmt.Sprintf("its %s has %s, as the pod's labels are", name, s)
		}
	}
	return ""
}

// onceRead is what to do about something that could not be read. The reason, and the right that is missing, are in
// NotLookedAt.
const onceRead = "Look again once that can be read: what was not looked at says why it could not."

// judgeInjection adds what a pod without a sidecar lacks for injection.
func (e *Explanation) judgeInjection() {
	l := e.Live
	switch {
	case e.Reason == string(redirect.ReasonNotOptedIn) && !l.namespaced:
		l.find(NotAsked, "whether its namespace has opted in could not be asked", onceRead)
		return
	case e.Reason != string(redirect.ReasonNotInjected):
		return
	case l.Injection == nil:
		l.find(NotAsked, "why Istio's injector has not given it a sidecar could not be asked", onceRead)
		return
	}
	var selects, leaves *Webhook
	for i := range l.Injection {
		switch w := &l.Injection[i]; {
		case !w.Selects:
		case w.Injector != nil && !w.Injector.Injects:
			leaves = cmp.Or(leaves, w)
		default:
			selects = cmp.Or(selects, w)
		}
	}
	switch {
	case selects != nil:
		next := "It was made before it was labelled so, or while istiod did not answer"
		if selects.Injector == nil {
			next += ", or the injector's own settings leave it out, which could not be looked at"
		}
		l.find(NotWell, fmt.Sprintf("it has no sidecar, although the webhook %s of %s selects it by the labels of now",
			selects.Name, selects.Configuration), next+". "+e.again())
		e.Next = ""
	case leaves != nil:
		its := leaves.Injector
		l.note("Istio's injector leaves it out, although its webhook selects it: %s (ConfigMap %s)", its.Why, its.ConfigMap)
		e.Next = "To have it in the mesh, label its template " + annotation.SidecarInject + ": \"true\", which comes " +
			"before neverInjectSelector and a policy that is disabled, or change these, and make the pod again."
	case len(l.Injection) == 0:
		l.note("no webhook in the cluster injects Istio's sidecar")
		e.Next = "To have it in the mesh, install istiod with its injector, label the namespace, and make the pod again."
	}
}
