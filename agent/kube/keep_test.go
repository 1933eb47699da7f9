package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// proxyGID is the sidecar's group in the policy.
const proxyGID = 1337

// numbers returns very many numbers from first on, then the named ones, then the many again.
func numbers(first int64, named ...int64) (list []int64) {
	for i := range int64(100_000) {
		list = append(list, first+i)
	}
	return slices.Concat(list, named, list)
}

// numbersText returns these numbers as a setting, with optional spaces and zeros.
func numbersText(first int64, named ...int64) string {
	var text []string
	for _, n := range numbers(first, named...) {
		text = append(text, fmt.Sprint(" 00", n))
	}
	return strings.Join(text, ",")
}

func proxyEnv(pod *corev1.Pod, name, value string) {
	env := &pod.Spec.Containers[1].Env
	*env = append(*env, corev1.EnvVar{Name: name, Value: value})
}

// keep keeps little, whatever is written into a pod. What it keeps says whether the pod is in the mesh, whether it
// waits, and which marks it has.
func TestKeepIsBounded(t *testing.T) {
	const most = 100 << 10 // bytes of a kept pod as JSON: 25 MiB for 250 pods
	long := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct {
		change  func(*corev1.Pod)
		partial bool
	}{
		"nothing":             {func(*corev1.Pod) {}, false},
		"other annotations":   {func(pod *corev1.Pod) { pod.Annotations["example.com/a"] = long }, false},
		"status of injection": {func(pod *corev1.Pod) { pod.Annotations[annotation.SidecarStatus] = long }, false},
		"word":                {func(pod *corev1.Pod) { pod.Annotations[annotation.AmbientRedirection] = long }, false},
		"hash":                {func(pod *corev1.Pod) { pod.Annotations[KeyConfigHash] = long }, false},
		"mark":                {func(pod *corev1.Pod) { pod.Annotations[annotation.Reason] = long }, false},
		"list":                {func(pod *corev1.Pod) { pod.Annotations[annotation.ExcludeInboundPorts] = long }, true},
		"names of traffic": {func(pod *corev1.Pod) {
			for i := range 10000 {
				pod.Annotations[fmt.Sprint(annotation.TrafficPrefix, i)] = ""
			}
		}, false},
		"labels":      {func(pod *corev1.Pod) { pod.Labels["example.com/a"] = long }, false},
		"environment": {func(pod *corev1.Pod) { pod.Spec.Containers[1].Env[0].Value = long }, false},
		"variables": {func(pod *corev1.Pod) {
			for range 10000 {
				pod.Spec.Containers[1].Env = append(pod.Spec.Containers[1].Env, pod.Spec.Containers[1].Env[0])
			}
		}, false},
		"arguments": {func(pod *corev1.Pod) {
			pod.Spec.Containers[1].Args = append(pod.Spec.Containers[1].Args, long)
			pod.Spec.InitContainers[2].Args = []string{long}
			pod.Spec.InitContainers[2].Command = append(pod.Spec.InitContainers[2].Command, long)
		}, false},
		"supplemental groups": {func(pod *corev1.Pod) {
			pod.Spec.SecurityContext.SupplementalGroups = numbers(10_000)
		}, true},
		"supplemental groups and the sidecar's by name": {func(pod *corev1.Pod) {
			pod.Annotations[annotation.EnvoyGroupID] = "2222"
			pod.Spec.SecurityContext.SupplementalGroups = numbers(10_000, 2222)
		}, true},
		"supplemental groups and the sidecar's": {func(pod *corev1.Pod) {
			pod.Spec.SecurityContext.SupplementalGroups = numbers(10_000, *pod.Spec.Containers[1].SecurityContext.RunAsGroup)
		}, true},
		"supplemental groups and the operator's": {func(pod *corev1.Pod) {
			pod.Spec.SecurityContext.RunAsGroup, pod.Spec.Containers[1].SecurityContext.RunAsGroup = nil, nil
			pod.Spec.SecurityContext.SupplementalGroups = numbers(10_000, proxyGID)
		}, true},
		"supplemental groups of the image": {func(pod *corev1.Pod) {
			pod.Status.ContainerStatuses[0].User.Linux.SupplementalGroups = numbers(10_000,
				*pod.Spec.Containers[1].SecurityContext.RunAsGroup)
		}, false},
		"groups that are left out": {func(pod *corev1.Pod) {
			proxyEnv(pod, redirect.EnvExcludeGroups, numbersText(10_000, 8))
		}, true},
		"groups that are not left out": {func(pod *corev1.Pod) {
			pod.Spec.Containers[2].SecurityContext.RunAsGroup = new(int64(2222))
			proxyEnv(pod, redirect.EnvIncludeGroups, numbersText(10_000, 2000, 6, 8, 11, 2222))
		}, true},
		"some groups with much space": {func(pod *corev1.Pod) {
			proxyEnv(pod, redirect.EnvExcludeGroups, strings.Repeat(" ", 1<<20)+"8")
		}, false},
		"groups by an annotation": {func(pod *corev1.Pod) {
			pod.Annotations[annotation.OwnExcludeOutboundOwnerGroups] = numbersText(10_000, 8)
		}, true},
		"groups that cannot be read": {func(pod *corev1.Pod) {
			proxyEnv(pod, redirect.EnvExcludeGroups, numbersText(10_000, 8)+",root")
		}, false},
		"ephemeral containers": {func(pod *corev1.Pod) {
			status := pod.Status.EphemeralContainerStatuses[0]
			for i := range 3000 {
				c := pod.Spec.EphemeralContainers[0]
				c.Name, status.Name = fmt.Sprint("e", i), fmt.Sprint("e", i)
				pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, c)
				pod.Status.EphemeralContainerStatuses = append(pod.Status.EphemeralContainerStatuses, status)
			}
		}, true},
		"ports": {func(pod *corev1.Pod) {
			var ports []string
			for port := 1; port < 1<<16; port += 2 {
				ports = append(ports, fmt.Sprint(port))
			}
			pod.Annotations[annotation.ExcludeInboundPorts] = strings.Join(ports, ",")
		}, true},
		"port with many zeros": {func(pod *corev1.Pod) {
			pod.Annotations[annotation.EnvoyPort] = strings.Repeat("0", 1<<18) + "15001"
		}, true},
		"owner":        {func(pod *corev1.Pod) { pod.OwnerReferences[1].Name = long }, false},
		"capabilities": {func(pod *corev1.Pod) { capabilities(pod)[0] = corev1.Capability("NET_" + long) }, false},
		"containers": {func(pod *corev1.Pod) {
			var others []corev1.Container
			status := pod.Status.ContainerStatuses[0]
			for i := range 3000 {
				status.Name = fmt.Sprint("c", i)
				others = append(others, corev1.Container{Name: status.Name})
				pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, status)
			}
			pod.Spec.InitContainers = append(others, pod.Spec.InitContainers...)
		}, true},
	} {
		pod := everything()
		pod.Spec.InitContainers = pod.Spec.InitContainers[1:] // without istio-init, which writes the rules itself
		c.change(pod)
		whole := trim(pod)
		kept := keep(pod, proxyGID)
		if data, err := json.Marshal(kept); err != nil || len(data) > most || IsPartial(kept) != c.partial {
			t.Errorf("%s: %d bytes are kept, partial is %t: %v", name, len(data), IsPartial(kept), err)
		}
		want, wantErr := redirect.Decide(podfacts.Of(whole, nil), redirect.DefaultPolicy())
		got, err := redirect.Decide(podfacts.Of(kept, nil), redirect.DefaultPolicy())
		if got.Verdict != want.Verdict || got.Reason != want.Reason || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: what is kept is decided %v %v, %v, want %v %v", name, got.Verdict, got.Reason, err, want.Verdict,
				want.Reason)
		}
		if want.Verdict == redirect.Redirect {
			gotShared := podfacts.AsRun(kept, nil).SharesProxyUser(got.Spec)
			if shared := podfacts.AsRun(whole, nil).SharesProxyUser(want.Spec); !reflect.DeepEqual(gotShared, shared) {
				t.Errorf("%s: of what is kept is shared %v, want %v", name, gotShared, shared)
			}
			gotLeft := podfacts.AsRun(kept, nil).LeftOut(got.Spec)
			if left := podfacts.AsRun(whole, nil).LeftOut(want.Spec); !reflect.DeepEqual(gotLeft, left) {
				t.Errorf("%s: of what is kept is left out %v, want %v", name, gotLeft, left)
			}
		}
		if wait, state := podfacts.InitWait(kept); wait != "wait" || state.Running == nil || !podfacts.IsHeld(kept) {
			t.Errorf("%s: the wait is %q %v", name, wait, state)
		}
		if _, marks := podfacts.Of(kept, nil).Annotations[keyPartial]; marks {
			t.Errorf("%s: the plugin is told of %s", name, keyPartial)
		}
		if again := keep(kept.DeepCopy(), proxyGID); !reflect.DeepEqual(again, kept) {
			t.Errorf("%s: kept twice is %+v, want %+v", name, again, kept)
		}
	}
}

func capabilities(pod *corev1.Pod) []corev1.Capability {
	return pod.Spec.InitContainers[2].SecurityContext.Capabilities.Drop
}

// encoded returns a list in the API server's protobuf encoding.
func encoded(t *testing.T, object runtime.Object) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := protobuf.NewSerializer(nil, nil).Encode(object, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A list is decoded pod by pod. A list that ends too early is an error, not a shorter list.
func TestDecodePods(t *testing.T) {
	list := &corev1.PodList{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"},
		ListMeta: metav1.ListMeta{ResourceVersion: "7", RemainingItemCount: new(int64(1))},
	}
	var names []string
	for i := range 3 {
		pod := everything()
		pod.Name, pod.Annotations = fmt.Sprint("cart-", i), meshPod().Annotations
		list.Items, names = append(list.Items, *pod), append(names, pod.Name)
	}
	data := encoded(t, list)
	got, err := decodePods(bytes.NewReader(data), proxyGID)
	if err != nil || got.ResourceVersion != "7" {
		t.Fatalf("%v, %v", got, err)
	}
	var read []string
	for i := range got.Items {
		read = append(read, got.Items[i].Name)
		facts, want := podfacts.Of(&got.Items[i], nil), podfacts.Of(keep(&list.Items[i], proxyGID), nil)
		if !reflect.DeepEqual(facts, want) {
			t.Errorf("%+v, want %+v", facts, want)
		}
	}
	if !slices.Equal(read, names) {
		t.Errorf("read %q, want %q", read, names)
	}
	whole := len(data)
	for n := range whole {
		if got, err := decodePods(bytes.NewReader(data[:n]), proxyGID); err == nil && len(got.Items) < len(names) {
			t.Errorf("the first %d bytes of %d are %d pods", n, whole, len(got.Items))
		}
	}
	for name, data := range map[string][]byte{
		"JSON": []byte(`{"kind": "PodList", "items": []}`), "nothing": nil,
		"a field of another kind": []byte(protobufMagic + "\x15\x00\x00\x00\x00"),
		"a pod of exabytes":       []byte(protobufMagic + "\x12\x0b\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
		"no pod":                  []byte(protobufMagic + "\x12\x04\x12\x02\xff\xff"),
	} {
		if got, err := decodePods(bytes.NewReader(data), proxyGID); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got, err := decodePods(bytes.NewReader(encoded(t, &corev1.PodList{})), proxyGID); err != nil || len(got.Items) > 0 {
		t.Errorf("an empty list: %+v, %v", got, err)
	}
}

// keep drops a setting that is too long, but an invalid one stays invalid, so that a warning names it.
func TestKeepKnowsWhatCannotBeRead(t *testing.T) {
	ports := strings.Repeat("80,", 20000) + "80"
	for value, readable := range map[string]bool{ports: true, ports + "x": false} {
		pod := everything()
		pod.Spec.InitContainers = pod.Spec.InitContainers[1:] // without istio-init, which writes the rules itself
		pod.Annotations[annotation.ExcludeInboundPorts] = value
		kept := keep(pod, proxyGID)
		_, err := redirect.Decide(podfacts.Of(kept, nil), redirect.DefaultPolicy())
		if (err == nil) != readable || !IsPartial(kept) {
			t.Errorf("…%s: partial %t, %v", value[len(value)-3:], IsPartial(kept), err)
		}
		if err != nil && !strings.Contains(err.Error(), annotation.ExcludeInboundPorts) {
			t.Error(err)
		}
	}
}
