package answer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// Limits of the API server for one pod, in bytes.
const (
	annotations = 256 << 10
	whole       = 1500 << 10
)

// serving returns the reader of an API server with one pod. It waits for that as long as it may.
func serving(t *testing.T, pod *corev1.Pod) agenttest.Reader {
	t.Helper()
	pod.APIVersion, pod.Kind = "v1", "Pod"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(pod)
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	await.Must(t, os.WriteFile(path, fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": [{"name": "c", "cluster": {"server": %q}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`,
		server.URL), 0o600))
	client, err := kube.Connect(kube.Config{Kubeconfig: path, QPS: 100, Burst: 100})
	await.Must(t, err)
	return func(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
		return client.Pod(kube.Patient(ctx), namespace, name)
	}
}

// large are pods as large as the API server accepts.
var large = map[string]func(*corev1.Pod){
	"list":               annotated(annotation.ExcludeOutboundPorts, "80,"),
	"list-to-be-escaped": annotated(annotation.ExcludeOutboundPorts, "<"),
	"list-of-no-letters": annotated(annotation.IncludeInboundPorts, "\x01"),
	"of-nobody":          annotated("example.com/a", "<"),
	"of-nobody-for-mesh": annotated(annotation.TrafficPrefix+"a", "<"),
	"only-looked-for":    annotated(annotation.SidecarStatus, "<"),
	"for-one-word":       annotated(annotation.Initialize, "<"),
	"thousands-of-traffic": func(pod *corev1.Pod) {
		for i := range annotations / 40 {
			pod.Annotations[fmt.Sprint(annotation.TrafficPrefix, i)] = ""
		}
	},
	"environment": func(pod *corev1.Pod) {
		pod.Spec.Containers[1].Env = []corev1.EnvVar{
			{Name: "A", Value: strings.Repeat("<", whole/2)},
			{Name: redirect.EnvDNSCapture, Value: strings.Repeat("<", whole/2)},
		}
	},
	"groups": func(pod *corev1.Pod) {
		var groups []string
		for i := range whole / 11 {
			groups = append(groups, fmt.Sprint(4_000_000_000+i))
		}
		proxy := &pod.Spec.Containers[1]
		proxy.Env = []corev1.EnvVar{{Name: redirect.EnvExcludeGroups, Value: strings.Join(groups, ",")}}
	},
	"groups-and-space": func(pod *corev1.Pod) {
		proxy := &pod.Spec.Containers[1]
		proxy.Env = []corev1.EnvVar{{Name: redirect.EnvIncludeGroups, Value: strings.Repeat("\v", whole/2) + "8"}}
	},
	"groups-to-be-escaped": func(pod *corev1.Pod) {
		proxy := &pod.Spec.Containers[1]
		proxy.Env = []corev1.EnvVar{{Name: redirect.EnvIncludeGroups, Value: "8," + strings.Repeat("<", whole/2)}}
	},
	"supplemental-groups": func(pod *corev1.Pod) {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{}
		groups := &pod.Spec.SecurityContext.SupplementalGroups
		for i := range whole / 6 {
			*groups = append(*groups, int64(2_000_000_000+i))
		}
		*groups = append(*groups, int64(redirect.DefaultSpec().ProxyGID))
	},
	"arguments": func(pod *corev1.Pod) { pod.Spec.Containers[1].Args = []string{"proxy", strings.Repeat("<", whole)} },
	"containers": func(pod *corev1.Pod) {
		for i := range whole / 100 {
			user := &corev1.SecurityContext{RunAsUser: new(int64(4_000_000_000)), RunAsGroup: new(int64(4_000_000_000))}
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: fmt.Sprint("c", i), SecurityContext: user})
		}
	},
}

func annotated(key, text string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Annotations[key] = strings.Repeat(text, annotations/len(text)) }
}

// For every pod that the API server accepts there is an answer that the plugin accepts, and it has all of the pod's
// settings.
func TestAnswerAboutLargePods(t *testing.T) {
	for name, change := range large {
		t.Run(name, func(t *testing.T) {
			pod, same := agenttest.MeshPod(name), agenttest.MeshPod(name)
			change(pod)
			change(same)
			a, _ := answering(t, serving(t, same), pod.DeepCopy())
			socket := filepath.Join(t.TempDir(), "s", "agent.sock")
			l, err := facts.Listen(socket)
			await.Must(t, err)
			served := make(chan error)
			go func() { served <- facts.Serve(l, a.Answer) }()
			t.Cleanup(func() { _ = l.Close(); await.Must(t, <-served) })
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for slow machines
			defer cancel()
			got, err := facts.Ask(ctx, socket, facts.Request{Namespace: "shop", Name: name})
			await.Must(t, err)
			if len(got.Containers) != len(pod.Spec.Containers) {
				t.Errorf("%d containers, want %d", len(got.Containers), len(pod.Spec.Containers))
			}
			for _, key := range []string{annotation.ExcludeOutboundPorts, annotation.IncludeInboundPorts} {
				if got.Annotations[key] != pod.Annotations[key] {
					t.Errorf("%s has %d bytes, want %d", key, len(got.Annotations[key]), len(pod.Annotations[key]))
				}
			}
			policy := redirect.DefaultPolicy()
			policy.SharedProxyUser = redirect.SharedRefuse
			want, wantErr := redirect.Decide(podfacts.Of(pod, got.NamespaceAnnotations), policy)
			decided, err := redirect.Decide(got, policy)
			if !reflect.DeepEqual(decided, want) || (err == nil) != (wantErr == nil) {
				t.Errorf("it is decided %s %s, %v, want %s %s, %v", decided.Verdict, decided.Reason, err, want.Verdict,
					want.Reason, wantErr)
			}
			if kube.IsPartial(a.pods.Named("shop", name)) != (len(got.Annotations[annotation.ExcludeOutboundPorts]) > 0 ||
				len(got.Annotations[annotation.IncludeInboundPorts]) > 0 || len(got.Containers) > 100 ||
				len(got.Containers[1].Env[redirect.EnvExcludeGroups]) > 0 || len(got.SupplementalGroups) > 0) {
				t.Error("what is read from the API server is not what does not fit into the cache")
			}
		})
	}
}
