package chart

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/internal/golden"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"
)

// ofVerify returns the pod that the chart stores for the tool's verify.
func ofVerify(t *testing.T, manifests string) (pod corev1.Pod, text string) {
	t.Helper()
	var config corev1.ConfigMap
	if !find(t, manifests, "ConfigMap", "istio-pod-network-verify", &config) {
		t.Fatal("the chart has no pod for verify")
	}
	text = config.Data["pod.yaml"]
	if err := yaml.UnmarshalStrict([]byte(text), &pod); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return pod, text
}

// The pod of verify is the pod of `helm test`, for all values. The tool's tests use the first one of these.
func TestPodOfVerify(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		for i, values := range [][]string{{"pluginImage.tag=v1"}, {"kubernetesDistribution=OpenShift"},
			{"redirect.families=proxy", "imagePullSecrets[0].name=regcred", "redirect.inboundPort=16006",
				"nodeSelector.mesh=on", "image.registry=r.example.com", "pluginImage.tag=v2"}} {
			manifests := template(t, helm, append(slices.Clone(values), "hooks=true")...)
			var test corev1.Pod
			find(t, manifests, "Pod", "mesh-pod", &test)
			test.Spec.ServiceAccountName = ""
			maps.DeleteFunc(test.Annotations, func(key, _ string) bool { return strings.HasPrefix(key, "helm.sh/") })
			pod, text := ofVerify(t, manifests)
			if !equality.Semantic.DeepEqual(pod.Spec, test.Spec) || !maps.Equal(pod.Annotations, test.Annotations) {
				t.Errorf("%q: the pod of verify is another than that of helm test:\n%s", values, text)
			}
			if i == 0 {
				golden.Compare(t, filepath.Join(build.Root(), "agent", "ctl", "verify", "testdata", "pod.yaml"),
					strings.TrimSpace(text)+"\n")
			}
		}
	})
}

// The verifier's role is rendered only if a value asks for it. Its rights are those in security.md, and it can change
// one namespace alone.
func TestVerifier(t *testing.T) {
	const verifier = "istio-pod-network-verifier"
	if find(t, template(t, "helm4"), "ClusterRole", verifier, &rbacv1.ClusterRole{}) {
		t.Error("the verifier's ClusterRole is there unasked")
	}
	page := readText(t, filepath.Join(build.Root(), "docs", "security.md"))
	both(t, func(t *testing.T, helm string) {
		for secrets, values := range map[bool][]string{
			false: {"rbac.verifier=true"}, true: {"rbac.verifier=true", "imagePullSecrets[0].name=regcred"},
		} {
			manifests := template(t, helm, values...)
			taken(t, manifests)
			var everywhere rbacv1.ClusterRole
			var here rbacv1.Role
			if !find(t, manifests, "ClusterRole", verifier, &everywhere) || !find(t, manifests, "Role", verifier, &here) {
				t.Fatal("a role is missing")
			}
			all := map[string]bool{}
			for _, r := range slices.Concat(everywhere.Rules, here.Rules) {
				for _, resource := range r.Resources {
					all[resource] = true
					if row := "| `" + resource + "` | " + strings.Join(r.Verbs, ", ") + " |"; !strings.Contains(page, row) {
						t.Errorf("security.md has no line %s", row)
					}
				}
				if slices.Equal(r.Resources, []string{"namespaces"}) && !slices.Equal(r.Verbs, []string{"create"}) &&
					!slices.Equal(r.ResourceNames, []string{"istio-pod-network-verify"}) {
					t.Errorf("%+v", r)
				}
			}
			for _, r := range here.Rules {
				if len(r.ResourceNames) == 0 {
					t.Errorf("without names: %+v", r)
				}
			}
			if all["secrets"] != secrets {
				t.Errorf("%q: rights on secrets: %t", values, all["secrets"])
			}
			for _, o := range objects(t, manifests) {
				if strings.HasSuffix(o.GetKind(), "RoleBinding") && strings.Contains(o.GetName(), "verif") {
					t.Errorf("%s %s gives these rights to somebody", o.GetKind(), o.GetName())
				}
			}
		}
	})
}
