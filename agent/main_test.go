package agent

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/fdleak"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	source "k8s.io/client-go/tools/cache/testing"
	kuberecord "k8s.io/client-go/tools/record"
)

// What needs the API server, processes or packets is tested in conformance/node.
func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

const testBoot bootID = "5e7c1c9d-boot"

func quiet() *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// meshPod is a pod that Istio's injector has given a sidecar.
func meshPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-of-" + name), Annotations: map[string]string{redirect.KeyStatus: "{}"},
		},
		Spec: corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "app"}, {Name: redirect.ProxyContainer}}},
	}
}

// recordFor is what the plugin leaves of a sandbox of the pod.
func recordFor(pod *corev1.Pod, netns string) record.Record {
	return record.Record{
		Version: record.Version, Network: "net", IfName: "eth0", ContainerID: "c" + netns, PodUID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name,
		NetNS: string(testBoot) + "/" + netns, Decision: record.Redirect, Reason: "injected", Backend: "nftables", Time: time.Now(),
	}
}

// cached is a pod cache that is fed by a source in memory.
func cached(t *testing.T, changed func(string), pods ...*corev1.Pod) (*podCache, *source.FakeControllerSource) {
	t.Helper()
	from := source.NewFakeControllerSource()
	for _, pod := range pods {
		from.Add(pod)
	}
	c, err := newPodCache(from, changed)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { c.run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, "the cache is synced", c.synced)
	return c, from
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// heard is a warner that remembers its Events.
func heard() (*warner, *kuberecord.FakeRecorder) {
	events := kuberecord.NewFakeRecorder(100)
	return &warner{recorder: events, log: quiet(), said: map[warning]saying{}}, events
}

// said returns the Events so far.
func said(events *kuberecord.FakeRecorder) []string {
	var all []string
	for {
		select {
		case e := <-events.Events:
			all = append(all, e)
		default:
			return all
		}
	}
}

// expectOne fails unless there is one Event, with that reason and those words.
func expectOne(t *testing.T, events *kuberecord.FakeRecorder, reason, words string) {
	t.Helper()
	all := said(events)
	if len(all) != 1 || !strings.HasPrefix(all[0], "Warning "+reason+" ") || !strings.Contains(all[0], words) {
		t.Errorf("Events %q, want one of %s with %q", all, reason, words)
	}
}
