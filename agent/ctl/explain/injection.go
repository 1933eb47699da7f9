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

// Webhook is one of Istio's injection webhooks. It says whether the webhook selects the pod by the present labels.
type Webhook struct {
	Configuration string `json:"configuration"`
	Name          string `json:"name"`
	Revision      string `json:"revision,omitempty"`
	Selects       bool   `json:"selects"`
	Why           string `json:"why,omitempty"` // why it does not, or that this is not known
	// Injector is what the injector does with the pod; absent unless the webhook is known to select it.
	Injector *Injector `json:"injector,omitempty"`

	namespace string // of the injector's service; "" if it is outside the cluster
}

// uninjected are the reasons of pods without a sidecar.
var uninjected = map[string]bool{
	string(redirect.ReasonNotInjected): true, string(redirect.ReasonNotOptedIn): true,
	string(redirect.ReasonNoProxy): true,
}

// Istio's webhook configurations: the end of the names of injection webhooks, and the label with which a namespace
// chooses a revision. Source: manifests/charts/istio-control/istio-discovery/templates/mutatingwebhook.yaml in
// istio/istio.
const (
	injectorSuffix = "sidecar-injector.istio.io"
	RevisionLabel  = "istio.io/rev"
)

// readInjection stores which injection webhooks select the pod.
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
		return // that the labels are not known is reported already
	}
	l.Injection = Injection(a.webhooks.all, pod, in.Labels)
	for i := range l.Injection {
		if w := &l.Injection[i]; w.Selects {
			a.readInjector(ctx, l, w, pod)
		}
	}
}

// Injection returns, for each of Istio's injection webhooks among all, whether it selects a pod in a namespace with
// these labels.
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

// takesNewPods reports whether a webhook's rule covers the creation of pods.
func takesNewPods(r admissionv1.RuleWithOperations) bool {
	has := func(all []string, one string) bool { return slices.Contains(all, one) || slices.Contains(all, "*") }
	made := slices.Contains(r.Operations, admissionv1.Create) || slices.Contains(r.Operations, admissionv1.OperationAll)
	return made && has(r.APIGroups, "") && (has(r.Resources, "pods") || slices.Contains(r.Resources, "*/*"))
}

// passedOver returns why a webhook does not select the pod, "" if it does.
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

// unmet returns the first requirement of a selector that labels do not meet, "" if there is none.
func unmet(name string, selector *metav1.LabelSelector, what string, has map[string]string) string {
	s, err := metav1.LabelSelectorAsSelector(selector)
	switch {
	case selector == nil: // for the API server no selector selects everything
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
