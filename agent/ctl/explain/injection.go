package explain

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Webhook is one of Istio's that inject, and whether it selects the pod by what it and its namespace say now.
type Webhook struct {
	Configuration string `json:"configuration"`
	Name          string `json:"name"`
	Revision      string `json:"revision,omitempty"`
	Selects       bool   `json:"selects"`
	Why           string `json:"why,omitempty"` // it does not, or that it is not known
	// Injector is what is behind it does with the pod; absent where it does not select it, or that is not known.
	Injector *Injector `json:"injector,omitempty"`

	namespace string // of what is behind it, "" for outside of the cluster
}

// uninjected are the reasons of pods that have no sidecar.
var uninjected = map[string]bool{
	string(redirect.ReasonNotInjected): true, string(redirect.ReasonNotOptedIn): true,
	string(redirect.ReasonNoProxy): true,
}

// Of Istio's configurations of webhooks: what the names of those end in that inject, and the label of the revision, by
// which a namespace asks for one. Source:
// manifests/charts/istio-control/istio-discovery/templates/mutatingwebhook.yaml in istio/istio.
const (
	injectorSuffix = "sidecar-injector.istio.io"
	RevisionLabel  = "istio.io/rev"
)

// readInjection notes which of the webhooks that inject select the pod.
func (a *asker) readInjection(ctx context.Context, l *Live, pod *corev1.Pod, in space) {
	if a.webhooks == nil {
		all, err := a.from.MutatingWebhooks(ctx)
		a.webhooks = &webhooks{all, err}
	}
	if a.webhooks.err != nil {
		l.miss("the webhooks that inject", "the verb list on mutatingwebhookconfigurations", a.webhooks.err)
		return
	}
	if in.err != nil {
		return // it is said that the labels are not known
	}
	l.Injection = Injection(a.webhooks.all, pod, in.Labels)
	for i := range l.Injection {
		if w := &l.Injection[i]; w.Selects {
			a.readInjector(ctx, l, w, pod)
		}
	}
}

// Injection says of each of Istio's webhooks that inject, of all, whether it selects a pod of a namespace with these
// labels.
func Injection(all []admissionv1.MutatingWebhookConfiguration, pod *corev1.Pod, namespace map[string]string) []Webhook {
	found := []Webhook{}
	for _, configuration := range all {
		for _, hook := range configuration.Webhooks {
			if !strings.HasSuffix(hook.Name, injectorSuffix) || !slices.ContainsFunc(hook.Rules, takesNewPods) {
				continue
			}
			w := Webhook{Configuration: configuration.Name, Name: hook.Name, Revision: configuration.Labels[RevisionLabel]}
			w.Why = passedOver(hook, pod, namespace)
			w.Selects = w.Why == ""
			if its := hook.ClientConfig.Service; its != nil {
				w.namespace = its.Namespace
			}
			found = append(found, w)
		}
	}
	slices.SortFunc(found, func(a, b Webhook) int {
		return strings.Compare(a.Configuration+"/"+a.Name, b.Configuration+"/"+b.Name)
	})
	return found
}

// takesNewPods reports whether a webhook's rule is about pods that are made.
func takesNewPods(r admissionv1.RuleWithOperations) bool {
	has := func(all []string, one string) bool { return slices.Contains(all, one) || slices.Contains(all, "*") }
	made := slices.Contains(r.Operations, admissionv1.Create) || slices.Contains(r.Operations, admissionv1.OperationAll)
	return made && has(r.APIGroups, "") && (has(r.Resources, "pods") || slices.Contains(r.Resources, "*/*"))
}

// passedOver says why a webhook does not select the pod, "" if it does.
func passedOver(hook admissionv1.MutatingWebhook, pod *corev1.Pod, namespace map[string]string) string {
	switch {
	case slices.Contains(neverInjected, pod.Namespace):
		return "Istio injects no pod in " + pod.Namespace
	case len(hook.MatchConditions) > 0:
		return "not known: it has matchConditions, which are not evaluated here"
	}
	if why := unmet("namespaceSelector", hook.NamespaceSelector, "namespace "+pod.Namespace, namespace); why != "" {
		return why
	}
	return unmet("objectSelector", hook.ObjectSelector, "the pod", pod.Labels)
}

// unmet says the first thing that a selector asks for and labels do not have, "" if there is none.
func unmet(name string, selector *metav1.LabelSelector, what string, has map[string]string) string {
	s, err := metav1.LabelSelectorAsSelector(selector)
	switch {
	case selector == nil: // for the API server that selects all
		return ""
	case err != nil:
		return fmt.Sprintf("its %s cannot be read: %v", name, err)
	}
	requirements, _ := s.Requirements()
	for _, r := range requirements {
		if r.Matches(labels.Set(has)) {
			continue
		}
		said := "has no such label"
		if value, present := has[r.Key()]; present {
			said = fmt.Sprintf("has %s=%s", r.Key(), value)
		}
		return fmt.Sprintf("its %s asks for %s, and %s %s", name, r.String(), what, said)
	}
	return ""
}
