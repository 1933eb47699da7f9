package chart

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// warned collects the API server's warnings.
type warned struct{ texts []string }

func (w *warned) HandleWarningHeader(_ int, _, text string) { w.texts = append(w.texts, text) }

// Before Kubernetes 1.36 the API server cannot remove copied marks (MutatingAdmissionPolicy). It accepts the copy and
// warns its author.
func TestCopiedMarksAreWarnedOf(t *testing.T) {
	old, errs, err := program(nil, "helm4", "template", "-n", system, dir(), "--kube-version=1.35.0")
	if err != nil || strings.Contains(old, "MutatingAdmissionPolicy") {
		t.Fatalf("for 1.35: %v %s\n%s", err, errs, old)
	}
	var policies []string
	for _, document := range strings.Split(old, "\n---\n") {
		if strings.Contains(document, "\nkind: ValidatingAdmissionPolicy") {
			policies = append(policies, document)
		}
	}
	const namespace = "policy-copied"
	applied(t, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\n", namespace)+
		strings.Join(policies, "\n---\n"))
	config, err := clientcmd.BuildConfigFromFlags("", admin)
	await.Must(t, err)
	var warnings warned
	config.WarningHandler = &warnings
	client, err := kubernetes.NewForConfig(config)
	await.Must(t, err)
	pods := client.CoreV1().Pods(namespace)
	create := func(name string, annotations map[string]string) (*corev1.Pod, error) {
		warnings.texts = nil
		return pods.Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
		}, metav1.CreateOptions{})
	}
	marks := map[string]string{status: "initialized", netns: "b/1/1", "a": "b"}
	await.Success(t, patience, "the policies are in force, and those of another test are not", func() error {
		pod, err := create("early", marks)
		if err != nil {
			return err
		}
		warned := slices.Clone(warnings.texts)
		mark, _ := json.Marshal(annotated(reason, "x"))
		_, err = pods.Patch(t.Context(), "early", types.MergePatchType, mark, metav1.PatchOptions{DryRun: []string{"All"}})
		gone := pods.Delete(t.Context(), "early", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
		if len(pod.Annotations) != len(marks) || len(warned) == 0 || err == nil {
			return errors.New(fmt.Sprint(pod.Annotations, ", ", warned, ", ", err))
		}
		return gone
	})
	pod, err := create("copied", marks)
	if err != nil || !maps.Equal(pod.Annotations, marks) || len(warnings.texts) != 1 ||
		!strings.Contains(warnings.texts[0], status+", "+netns) || strings.Contains(warnings.texts[0], reason) {
		t.Errorf("the copy has %v, warnings %q, %v", pod.Annotations, warnings.texts, err)
	}
	_, err = create("plain", map[string]string{"a": "b"})
	if err != nil || len(warnings.texts) > 0 {
		t.Errorf("of a pod without marks: %q, %v", warnings.texts, err)
	}
	if err := patchIn(namespace, client, "plain", "", annotated(status, "initialized")); err == nil {
		t.Error("the mark of a pod is anybody's to set")
	}
}

// The policy is rendered if the API server supports it. Otherwise the notes say that it is missing.
func TestPolicyIsRendered(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		old, _, err := program(nil, helm, "template", "-n", system, dir(), "--kube-version=1.29.0")
		if err != nil || strings.Contains(old, "ValidatingAdmissionPolicy") {
			t.Errorf("for 1.29: %v\n%s", err, old)
		}
		for values, want := range map[string]bool{"": true, "admissionPolicy.enabled=false": false,
			"admissionPolicy.enabled=true": true} {
			args := []string{"install", name, dir(), "-n", "mesh-" + helm, "--create-namespace", "--dry-run=server"}
			if values != "" {
				args = append(args, "--set="+values)
			}
			out, errs, err := program(nil, helm, args...)
			if err != nil {
				t.Fatal(errs)
			}
			if rendered := strings.Contains(out, "kind: ValidatingAdmissionPolicy\n"); rendered != want ||
				strings.Contains(out, "no admission policy") == want {
				t.Errorf("%q: rendered %v, notes say %v", values, rendered, strings.Contains(out, "no admission policy"))
			}
		}
	})
}
