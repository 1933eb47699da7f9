package chart

import (
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	rbacv1 "k8s.io/api/rbac/v1"
)

// The reader's role allows what the operator's tool reads from the API server. It allows no exec, no change, and no
// read of secrets.
func TestReader(t *testing.T) {
	const role = "istio-pod-network-reader"
	if find(t, template(t, "helm4"), "ClusterRole", role, &rbacv1.ClusterRole{}) {
		t.Error("it was not asked for")
	}
	both(t, func(t *testing.T, helm string) {
		applied(t, template(t, helm, "rbac.reader=true"))
		applied(t, `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: `+role+`}
subjects: [{kind: User, name: reader, apiGroup: rbac.authorization.k8s.io}]
`)
		answer := func(question string) (string, string) {
			args := append([]string{"auth", "can-i", "--as=reader"}, strings.Fields(question)...)
			out, errs, _ := program(nil, "kubectl", args...)
			return strings.TrimSpace(out), errs
		}
		await.Eventually(t, patience, "the API server has read of the binding", func() bool {
			said, _ := answer("list nodes")
			return said == "yes"
		})
		for want, questions := range map[string][]string{
			"yes": {"get pods -n shop", "list pods -A", "get namespaces", "list nodes", "list events -n shop",
				"list daemonsets.apps -A", "get configmaps/istio-pod-network-config -n " + system,
				"list mutatingwebhookconfigurations.admissionregistration.k8s.io", "list deployments.apps -n istio-system",
				"get configmaps/istio-sidecar-injector -n istio-system", "get configmaps/cilium-config -n kube-system",
				"get validatingadmissionpolicies.admissionregistration.k8s.io",
				"get validatingadmissionpolicybindings.admissionregistration.k8s.io",
				"get mutatingadmissionpolicies.admissionregistration.k8s.io",
				"get mutatingadmissionpolicybindings.admissionregistration.k8s.io"},
			"no": {"create pods --subresource=exec -n " + system, "get pods --subresource=exec -n " + system,
				"get configmaps/other -n " + system, "list configmaps -A", "list secrets -A", "patch pods -n shop",
				"delete pods -n shop", "get nodes --subresource=proxy"},
		} {
			for _, question := range questions {
				if said, errs := answer(question); said != want {
					t.Errorf("%s: %s, want %s: %s", question, said, want, errs)
				}
			}
		}
	})
}
