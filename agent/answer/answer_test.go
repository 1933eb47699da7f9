package answer

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/fdleak"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/facts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	source "k8s.io/client-go/tools/cache/testing"
)

func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

// answering is an Answerer that has those pods in its cache, and whose API server is a function.
func answering(t *testing.T, reader agenttest.Reader, pods ...*corev1.Pod) (*Answerer, *source.FakeControllerSource) {
	c, from := agenttest.Pods(t, func(string) {}, pods...)
	namespaces := agenttest.Namespaces(t, func(_ context.Context, name string) (map[string]string, error) {
		if name != "shop" {
			return nil, errors.New("no such namespace")
		}
		return map[string]string{annotation.Initialize: "true", "other": "x"}, nil
	})
	return New("node", c, namespaces, reader, func(Source) {}), from
}

func TestAnswer(t *testing.T) {
	static := agenttest.MeshPod("static")
	static.Annotations[kube.KeyConfigHash] = "hash"
	elsewhere := agenttest.MeshPod("elsewhere")
	elsewhere.Spec.NodeName = "another"
	live := map[string]*corev1.Pod{"live": agenttest.MeshPod("live"), "elsewhere": elsewhere, "again": agenttest.MeshPod("again")}
	reads := 0
	a, _ := answering(t, func(_ context.Context, _, name string) (*corev1.Pod, error) {
		if reads++; name == "flaky" && reads%3 != 0 {
			return nil, apierrors.NewServiceUnavailable("a moment")
		}
		if name == "flaky" {
			return agenttest.MeshPod("flaky"), nil
		}
		if pod := live[name]; pod != nil {
			return pod, nil
		}
		return nil, agenttest.NotFound(name)
	}, agenttest.MeshPod("known"), static, agenttest.MeshPod("again"))
	for _, c := range []struct{ name, uid, words string }{
		{"known", "uid-of-known", ""}, {"known", "", ""}, {"static", "hash", ""}, {"live", "uid-of-live", ""}, {"flaky", "uid-of-flaky", ""},
		{"gone", "uid", `"gone" not found`}, {"again", "uid-of-another", "is gone"}, {"elsewhere", "", `on node "another", and this is the agent of node "node"`},
	} {
		reads = 0
		r := a.Answer(t.Context(), facts.Request{Namespace: "shop", Name: c.name, UID: c.uid})
		switch {
		case c.words == "" && (r.Pod == nil || r.Pod.Name != c.name || r.Pod.NamespaceAnnotations[annotation.Initialize] != "true" || len(r.Pod.NamespaceAnnotations) != 1):
			t.Errorf("%s: %+v %v", c.name, r.Pod, r.Error)
		case c.words != "" && (r.Error == nil || r.Error.Code != codeTryLater || !strings.Contains(r.Error.Message, c.words)):
			t.Errorf("%s: %+v %v, want %q", c.name, r.Pod, r.Error, c.words)
		}
		if c.name == "known" && reads > 0 {
			t.Error("a pod that is in the cache is read from the API server")
		}
	}
}

// While the API server hangs or fails, the watch may bring the pod; and a question that ends is answered by an error that
// says what the matter was.
func TestAnswerMeanwhile(t *testing.T) {
	hang := func(ctx context.Context, _, _ string) (*corev1.Pod, error) { <-ctx.Done(); return nil, ctx.Err() }
	a, _ := answering(t, hang)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if r := a.Answer(ctx, facts.Request{Namespace: "shop", Name: "cart"}); r.Error == nil || !strings.Contains(r.Error.Message, "deadline exceeded") {
		t.Errorf("%+v", r)
	}
	refuse := func(context.Context, string, string) (*corev1.Pod, error) {
		return nil, errors.New("connection refused")
	}
	a, from := answering(t, refuse)
	time.AfterFunc(300*time.Millisecond, func() { from.Add(agenttest.MeshPod("cart")) })
	if r := a.Answer(t.Context(), facts.Request{Namespace: "shop", Name: "cart"}); r.Pod == nil {
		t.Errorf("%+v", r.Error)
	}
	a, _ = answering(t, refuse)
	ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if r := a.Answer(ctx, facts.Request{Namespace: "shop", Name: "cart"}); r.Error == nil || !strings.Contains(r.Error.Message, "connection refused") {
		t.Errorf("%+v", r)
	}
}
