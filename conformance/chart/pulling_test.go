package chart

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// A pod needs pull secrets of its own namespace. So `helm test` can use another namespace that has them. It creates
// only its pod there.
func TestPullSecretsOfTheTest(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		const secret = "imagePullSecrets[0].name=regcred"
		for namespace, values := range map[string][]string{
			"istio-pod-network-test": {secret}, "mesh-test": {secret, "test.namespace=mesh-test"},
		} {
			manifests := template(t, helm, append(values, "hooks=true")...)
			var pod corev1.Pod
			if !find(t, manifests, "Pod", "mesh-pod", &pod) || pod.Namespace != namespace ||
				!slices.Equal(pod.Spec.ImagePullSecrets, []corev1.LocalObjectReference{{Name: "regcred"}}) {
				t.Errorf("%s: the pod is in %q and pulls with %v", namespace, pod.Namespace, pod.Spec.ImagePullSecrets)
			}
			own := namespace == "istio-pod-network-test"
			if find(t, manifests, "Namespace", namespace, &corev1.Namespace{}) != own ||
				find(t, manifests, "ServiceAccount", "mesh-pod", &corev1.ServiceAccount{}) != own ||
				(pod.Spec.ServiceAccountName == "mesh-pod") != own {
				t.Errorf("%s: it is made, or the account of its pods: %t", namespace, !own)
			}
		}
		notes := func(values ...string) string {
			out, errs, err := program(nil, helm, append([]string{"install", name, dir(), "-n", "mesh", "--dry-run=server"},
				set(values)...)...)
			if err != nil {
				t.Fatal(errs)
			}
			return out
		}
		const told = "Set test.namespace"
		if !strings.Contains(notes(secret), told) || strings.Contains(notes(secret, "test.namespace=mesh-test"), told) ||
			strings.Contains(notes(), told) {
			t.Error("who has to set test.namespace is not told, or who has not is")
		}
	})
}

// initial returns a pod with istio-init, as Istio's injector makes it.
func initial(secrets ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "cart", Namespace: "default",
			Annotations: map[string]string{"sidecar.istio.io/status": "{}"}},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "istio-init", Image: "proxy", SecurityContext: &corev1.SecurityContext{
				Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}}},
			Containers: []corev1.Container{{Name: "app", Image: "app"}, {Name: "istio-proxy", Image: "proxy"}},
			Volumes:    []corev1.Volume{{Name: "istio-podinfo"}},
		},
	}
	for _, name := range secrets {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return pod
}

// With the policy's image for istio-init, the pod gets the chart's pull secrets beside its own.
func TestPullSecretsOfTheWait(t *testing.T) {
	config, err := clientcmd.BuildConfigFromFlags("", admin)
	await.Must(t, err)
	client, err := kubernetes.NewForConfig(config)
	await.Must(t, err)
	both := []string{"imagePullSecrets[0].name=regcred", "imagePullSecrets[1].name=more"}
	for _, c := range []struct {
		values []string
		pod    *corev1.Pod
		want   []string
	}{
		{both, initial(), []string{"regcred", "more"}},
		{both, initial("own", "more"), []string{"own", "more", "regcred"}},
		{nil, initial("own"), []string{"own"}},
	} {
		t.Run(fmt.Sprint(c.want), func(t *testing.T) {
			manifests := template(t, "helm4", append(c.values, "injection.replaceInit=true", "admissionPolicy.enabled=false")...)
			taken(t, manifests)
			applied(t, manifests)
			await.Success(t, patience, "the policy is in force", func() error {
				pod, err := client.CoreV1().Pods("default").Create(context.Background(), c.pod,
					metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				if err != nil {
					return err
				}
				if !strings.Contains(pod.Spec.InitContainers[0].Image, "istio-pod-network-plugin") {
					return errors.New("istio-init is not replaced")
				}
				var got []string
				for _, s := range pod.Spec.ImagePullSecrets {
					got = append(got, s.Name)
				}
				if !slices.Equal(got, c.want) { // perhaps still by the policy of the last render
					return fmt.Errorf("it pulls with %q, want %q", got, c.want)
				}
				return nil
			})
			other := initial("own") // the policy does not change it
			other.Annotations = nil
			pod, err := client.CoreV1().Pods("default").Create(context.Background(), other,
				metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil || len(pod.Spec.ImagePullSecrets) != 1 {
				t.Errorf("a pod outside of the mesh: %v %v", err, pod.Spec.ImagePullSecrets)
			}
		})
	}
}
