package chart

import (
	"net/http"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// With apiPriority.enabled, the API server counts the agents' requests towards their own priority level, and no others.
func TestAPIPriority(t *testing.T) {
	manifests := template(t, "helm4", "apiPriority.enabled=true", "apiPriority.concurrencyShares=7")
	applied(t, manifests)
	config, err := clientcmd.BuildConfigFromFlags("", admin)
	if err != nil {
		t.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	var level flowcontrolv1.PriorityLevelConfiguration
	if !find(t, manifests, "PriorityLevelConfiguration", "istio-pod-network-agent", &level) ||
		*level.Spec.Limited.NominalConcurrencyShares != 7 {
		t.Errorf("the level is %+v", level.Spec)
	}
	schema, err := client.FlowcontrolV1().FlowSchemas().Get(t.Context(), "istio-pod-network-agent", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Otherwise all agents would share a queue, and a mark would wait behind the lists of agents that start.
	flows := schema.Spec.DistinguisherMethod
	if flows == nil || flows.Type != flowcontrolv1.FlowDistinguisherMethodByNamespaceType {
		t.Errorf("flows are distinguished by %+v", flows)
	}
	await.Eventually(t, patience, "the schema has its level", func() bool { // and the API server uses it
		return answeredBy(t, config, "istio-pod-network-agent") == string(schema.UID)
	})
	if by := answeredBy(t, config, "default"); by == "" || by == string(schema.UID) {
		t.Errorf("a request of another account is counted towards %q, and those of agents towards %q", by, schema.UID)
	}
}

// answeredBy returns the UID of the FlowSchema for a request of a service account:
// https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#diagnostics
func answeredBy(t *testing.T, admin *rest.Config, account string) (schema string) {
	t.Helper()
	config := rest.CopyConfig(admin)
	config.Impersonate.UserName = "system:serviceaccount:" + system + ":" + account
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			answer, err := next.RoundTrip(r)
			if err == nil {
				schema = answer.Header.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID)
			}
			return answer, err
		})
	})
	// The response has the header even if the request is refused.
	_, _ = kubernetes.NewForConfigOrDie(config).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{Limit: 1})
	return schema
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }
