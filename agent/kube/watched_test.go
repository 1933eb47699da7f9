package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// Only a new watch ends a failure. What the client ends itself is no failure.
func TestWatched(t *testing.T) {
	refused := errors.New("refused")
	var answer error
	w := newWatched(&cache.ListWatch{
		ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			return &metav1.PartialObjectMetadataList{}, answer
		},
		WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) {
			return watch.NewFake(), answer
		},
	})
	var watching watch.Interface
	list := func() { _, _ = w.List(metav1.ListOptions{}) }
	begin := func() {
		if made, err := w.Watch(metav1.ListOptions{}); err == nil {
			watching = made
		}
	}
	ctx, end := context.WithCancel(t.Context())
	end()
	for _, c := range []struct {
		what    string
		do      func()
		answer  error
		failing bool
		err     error
	}{
		{"nothing yet", func() {}, nil, false, nil},
		{"a list is refused", list, refused, true, refused},
		{"a list comes", list, nil, true, refused},
		{"a watch is refused", begin, refused, true, refused},
		{"a watch stands", begin, nil, false, nil},
		{"it ends", func() { watching.Stop() }, nil, true, nil},
		{"the next one stands", begin, nil, false, nil},
		{"a list is refused beside it", list, refused, true, refused},
		{"a watch stands again", begin, nil, false, nil},
		{"the agent ends", func() {
			_, _ = w.ListWithContext(ctx, metav1.ListOptions{})
			_, _ = w.WatchWithContext(ctx, metav1.ListOptions{})
		}, refused, false, nil},
	} {
		answer = c.answer
		c.do()
		if since, err := w.Failing(); since.IsZero() == c.failing || !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%s: since %v, %v", c.what, since, err)
		}
	}
}

// Every cache notices an API server that goes away, although client-go does not report refused connections. The error
// does not have the request's URL.
func TestWatchedServerGoesAway(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Query().Get("sendInitialEvents") != "":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "BadRequest", "code": 400}`)
		case r.URL.Query().Get("watch") != "":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case strings.HasSuffix(r.URL.Path, "/pods"):
			none, _ := (&runtime.Unknown{Raw: []byte{}}).Marshal()
			_, _ = w.Write(append([]byte(protobufMagic), none...))
		case strings.HasSuffix(r.URL.Path, "/nodes"):
			fmt.Fprint(w, `{"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}`)
		default:
			fmt.Fprint(w, `{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": `+
				`{"resourceVersion": "1"}, "items": []}`)
		}
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	await.Must(t, os.WriteFile(path, kubeconfig(server.URL), 0o600))
	client, err := Connect(Config{Kubeconfig: path, QPS: 100, Burst: 100})
	await.Must(t, err)
	pods, err := NewPods(client.PodsOf("n", 1337), 1337, func(string) {})
	await.Must(t, err)
	namespaces := NewNamespaces(client.Namespaces(), client.NamespaceAnnotations)
	taints, err := NewTaints(client.NodeOf("n"))
	await.Must(t, err)
	all := map[string]interface {
		Run(ctx context.Context)
		Synced() bool
		Failing() (since time.Time, err error)
	}{"pods": pods.Cache, "namespaces": namespaces, "taints": taints.Cache}
	ctx, end := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	t.Cleanup(func() { end(); ended.Wait() })
	for name, c := range all {
		ended.Go(func() { c.Run(ctx) })
		await.Eventually(t, time.Minute, name+" are read and watched", func() bool {
			since, err := c.Failing()
			return c.Synced() && since.IsZero() && err == nil
		})
	}
	server.Listener.Close()
	server.CloseClientConnections()
	for name, c := range all {
		await.Eventually(t, time.Minute, name+": the connection is refused", func() bool {
			since, err := c.Failing()
			return !since.IsZero() && err != nil && strings.Contains(err.Error(), "connection refused") &&
				!strings.Contains(err.Error(), server.URL)
		})
	}
}

// The pods of a node are listed and never streamed, even if the API server can: for a stream it goes through the pods
// of all nodes.
func TestPodsAreListed(t *testing.T) {
	requests := await.NewOutput(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		fmt.Fprintln(requests.File, cmp.Or(query.Get("watch"), "list"), query.Get("sendInitialEvents"), "from",
			query.Get("resourceVersion"))
		if query.Get("watch") != "" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		list, _ := (&corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}}).Marshal()
		none, _ := (&runtime.Unknown{Raw: list}).Marshal()
		_, _ = w.Write(append([]byte(protobufMagic), none...))
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	await.Must(t, os.WriteFile(path, kubeconfig(server.URL), 0o600))
	client, err := Connect(Config{Kubeconfig: path, QPS: 100, Burst: 100})
	await.Must(t, err)
	pods, err := NewPods(client.PodsOf("n", 1337), 1337, func(string) {})
	await.Must(t, err)
	ctx, end := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	t.Cleanup(func() { end(); ended.Wait() })
	ended.Go(func() { pods.Run(ctx) })
	await.Eventually(t, time.Minute, "something is asked for", func() bool { return requests.String() != "" })
	if first, _, _ := strings.Cut(requests.String(), "\n"); first != "list  from 0" {
		t.Errorf("asked for %q first, want a list from the API server's cache", first)
	}
}
