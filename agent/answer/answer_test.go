package answer

import (
	"context"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/fdleak"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	source "k8s.io/client-go/tools/cache/testing"
)

func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

// answering returns an Answerer with these pods in its cache, and with a function as the API server. It has as much
// time as the question gives it.
func answering(t *testing.T, reader agenttest.Reader, pods ...*corev1.Pod) (*Answerer, *source.FakeControllerSource) {
	c, from := agenttest.Pods(t, func(string) {}, pods...)
	namespaces := agenttest.Namespaces(t, func(_ context.Context, name string) (map[string]string, error) {
		if name != "shop" {
			return nil, errors.New("no such namespace")
		}
		return map[string]string{annotation.Initialize: "true", "other": "x"}, nil
	})
	a := New("node", c, namespaces, reader, func(Source) {})
	a.within = time.Hour
	return a, from
}

// sidecar is the answer about a pod of agenttest, with everything that the decision depends on.
func sidecar(name string) redirect.Pod {
	return redirect.Pod{
		Namespace: "shop", Name: name, UID: "uid-of-" + name, Complete: true,
		Annotations:          map[string]string{annotation.SidecarStatus: ""}, // only its existence is read
		NamespaceAnnotations: map[string]string{annotation.Initialize: "true"},
		Containers:           []redirect.Container{{Name: "app"}, {Name: redirect.ProxyContainer, Env: map[string]string{}}},
	}
}

func TestAnswer(t *testing.T) {
	thief := agenttest.MeshPod("thief")
	thief.Annotations[kube.KeyMirror], thief.Annotations[kube.KeyConfigHash] = "uid-of-known", "uid-of-known"
	elsewhere := agenttest.MeshPod("elsewhere")
	elsewhere.Spec.NodeName = "another"
	live := map[string]*corev1.Pod{"live": agenttest.MeshPod("live"), "elsewhere": elsewhere,
		"again": agenttest.MeshPod("again"), "thief": thief}
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
	}, agenttest.MeshPod("known"), agenttest.StaticPod("static", "hash"), thief, agenttest.MeshPod("again"))
	var sources []Source
	a.answered = func(s Source) { sources = append(sources, s) }
	for _, c := range []struct {
		namespace, name, uid string
		source               Source
		words                string // of the error
	}{
		{"shop", "known", "uid-of-known", FromCache, ""},
		{"shop", "known", "", FromCache, ""},
		{"shop", "static", "hash", FromCache, ""},
		{"shop", "live", "uid-of-live", FromLive, ""},
		{"shop", "flaky", "uid-of-flaky", FromLive, ""},
		{"shop", "gone", "uid", NoAnswer, `"gone" not found`},
		{"shop", "again", "uid-of-another", NoAnswer, "is gone"},
		{"shop", "thief", "uid-of-known", NoAnswer, "is gone"}, // whatever hash the pod claims to have
		{"shop", "elsewhere", "", NoAnswer, `on node "another", and this is the agent of node "node"`},
		{"other", "live", "", NoAnswer, `reading namespace "other": no such namespace`},
	} {
		reads, sources = 0, nil
		r := a.Answer(t.Context(), facts.Request{Namespace: c.namespace, Name: c.name, UID: c.uid})
		want := sidecar(c.name)
		switch {
		case c.words == "" && (r.Pod == nil || !reflect.DeepEqual(*r.Pod, want)):
			t.Errorf("%s: %+v %v, want %+v", c.name, r.Pod, r.Error, want)
		case c.words != "" && (r.Error == nil || r.Error.Code != codeTryLater || !strings.Contains(r.Error.Message, c.words)):
			t.Errorf("%s: %+v %v, want %q", c.name, r.Pod, r.Error, c.words)
		}
		if c.source == FromCache && reads > 0 {
			t.Error("a pod that is in the cache is read from the API server")
		}
		if !slices.Equal(sources, []Source{c.source}) {
			t.Errorf("%s: answered from %q, want %q", c.name, sources, c.source)
		}
	}
}

// A question with NoNamespace causes no request for the namespace. The answer to any other question has the namespace's
// annotations, even if the agent does not watch namespaces.
func TestAnswerAboutNamespace(t *testing.T) {
	a, _ := answering(t, nil, agenttest.MeshPod("known"))
	reads := 0
	a.namespaces = kube.NamespacesOnDemand(func(context.Context, string) (map[string]string, error) {
		reads++
		return map[string]string{annotation.Initialize: "false"}, nil
	})
	for _, unread := range []bool{true, false} {
		reads = 0
		r := a.Answer(t.Context(), facts.Request{Namespace: "shop", Name: "known", NoNamespace: unread})
		if r.Pod == nil || (reads == 0) != unread || (len(r.Pod.NamespaceAnnotations) == 0) != unread {
			t.Errorf("noNamespace %t: %+v %v after %d reads", unread, r.Pod, r.Error, reads)
		}
	}
}

// While the API server hangs or fails, the watch may deliver the pod. A question that gets no answer ends with an error
// that gives the reason.
func TestAnswerMeanwhile(t *testing.T) {
	hang := func(ctx context.Context, _, _ string) (*corev1.Pod, error) { <-ctx.Done(); return nil, ctx.Err() }
	a, _ := answering(t, hang)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if r := a.Answer(ctx, facts.Request{Namespace: "shop", Name: "cart"}); r.Error == nil ||
		!strings.Contains(r.Error.Message, "deadline exceeded") {
		t.Errorf("%+v", r)
	}
	second := func(do func()) agenttest.Reader { // fails, and calls do at the second request
		reads := 0
		return func(context.Context, string, string) (*corev1.Pod, error) {
			if reads++; reads == 2 {
				do()
			}
			return nil, errors.New("connection refused")
		}
	}
	var from *source.FakeControllerSource
	a, from = answering(t, second(func() { from.Add(agenttest.MeshPod("cart")) }))
	if r := a.Answer(t.Context(), facts.Request{Namespace: "shop", Name: "cart"}); r.Pod == nil {
		t.Errorf("%+v", r.Error)
	}
	ctx, cancel = context.WithCancel(t.Context())
	a, _ = answering(t, second(cancel))
	if r := a.Answer(ctx, facts.Request{Namespace: "shop", Name: "cart"}); r.Error == nil ||
		!strings.Contains(r.Error.Message, "connection refused") {
		t.Errorf("%+v", r)
	}
}

// A pod that was read from the API server is known while that is away, until the watch has delivered it. From then on
// the watch is used, also about its deletion.
func TestAnswerAgain(t *testing.T) {
	away, reads, giveUp := false, 0, func() {}
	a, from := answering(t, func(_ context.Context, _, name string) (*corev1.Pod, error) {
		if !away {
			return agenttest.MeshPod(name), nil
		}
		if reads++; reads == 2 {
			giveUp()
		}
		return nil, errors.New("connection refused")
	})
	var sources []Source
	a.answered = func(s Source) { sources = append(sources, s) }
	ask := func(uid string) facts.Response { // for as long as the second request to an API server that is away
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		reads, giveUp = 0, cancel
		return a.Answer(ctx, facts.Request{Namespace: "shop", Name: "cart", UID: uid})
	}
	ask("uid-of-cart")
	away = true
	if r := ask("uid-of-cart"); r.Pod == nil || !reflect.DeepEqual(*r.Pod, sidecar("cart")) {
		t.Errorf("%+v %v", r.Pod, r.Error)
	}
	if r := ask("uid-of-another"); r.Error == nil || !strings.Contains(r.Error.Message, "connection refused") {
		t.Errorf("%+v %v", r.Pod, r.Error)
	}
	if !slices.Equal(sources, []Source{FromLive, FromCache, NoAnswer}) {
		t.Errorf("answered from %q", sources)
	}
	cart := agenttest.MeshPod("cart")
	from.Add(cart)
	await.Eventually(t, time.Minute, "the watch brings it", func() bool { return a.pods.Named("shop", "cart") != nil })
	from.Delete(cart)
	await.Eventually(t, time.Minute, "the watch takes it away", func() bool { return a.pods.Named("shop", "cart") == nil })
	await.Eventually(t, time.Minute, "it is forgotten", func() bool { return ask("uid-of-cart").Error != nil })
}

// Only a few pods are read at once, however many questions there are. A question that waits for its turn ends in time.
func TestLiveReadsAreBounded(t *testing.T) {
	busy, free := make(chan bool, 2*liveReads), make(chan bool)
	a, _ := answering(t, func(ctx context.Context, _, name string) (*corev1.Pod, error) {
		busy <- true
		select {
		case <-free:
			return agenttest.MeshPod(name), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	var questions sync.WaitGroup
	for range liveReads {
		questions.Go(func() { a.Answer(t.Context(), facts.Request{Namespace: "shop", Name: "cart"}) })
	}
	for range liveReads {
		<-busy
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*watchGrace)
	defer cancel()
	if r := a.Answer(ctx, facts.Request{Namespace: "shop", Name: "late"}); r.Error == nil ||
		!strings.Contains(r.Error.Message, "deadline exceeded") {
		t.Errorf("%+v", r)
	}
	close(free)
	questions.Wait()
	if len(busy) > 0 {
		t.Errorf("%d reads more than %d", len(busy), liveReads)
	}
}
