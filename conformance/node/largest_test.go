package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	"github.com/istio-pod-network/controller/plugin/facts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// A node full of pods of the largest size fits into the agent's memory: when it reads the list of them, and when it
// answers questions about all of them at the same time, for which it reads each again. The pods come from a server in
// this test, because a real API server with so many takes minutes and gigabytes. TestLargestPods uses a real one.
func TestManyLargestPods(t *testing.T) {
	const pods = 250
	r := newRig(t).withPrimary()
	served := newLargest(r, pods)
	web := httptest.NewServer(served)
	t.Cleanup(web.Close)
	r.write("large", fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": `+
		`[{"name": "c", "cluster": {"server": %q}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`, web.URL))
	r.startAgent("--log-level=info", "--kubeconfig="+r.path("large"), "--runtime-version=containerd://2.1.4",
		"--api-qps=1000", "--api-burst=1000")
	r.ready()
	r.withinMemory(fmt.Sprintf("with %d pods listed", pods))
	ctx, end := context.WithTimeout(r.ctx, patience)
	defer end()
	var asking sync.WaitGroup
	for i := range pods {
		asking.Go(func() {
			for !served.ask(ctx, r, i) {
				if ctx.Err() != nil {
					t.Errorf("no answer about pod %d", i)
					return
				}
			}
		})
	}
	asking.Wait()
	r.withinMemory(fmt.Sprintf("with %d questions", pods))
	if lists, reads := served.requests(); lists["whole"] != 1 || len(lists) != 1 || reads < pods/3 {
		t.Errorf("the lists were %v, and %d pods were read", lists, reads)
	}
}

// largest serves the pods of a node, of four kinds.
type largest struct {
	node  string
	count int
	kinds []*corev1.Pod

	mu    sync.Mutex
	lists map[string]int
	reads int
}

func newLargest(r *rig, count int) *largest {
	l := &largest{node: r.node, count: count, lists: map[string]int{}}
	for i := range 4 {
		pod := r.podOf("", meshAnnotations())
		sandbox.Enlarge(pod, i)
		l.kinds = append(l.kinds, pod)
	}
	return l
}

// pod returns one of them. Pods of one kind have the same size.
func (l *largest) pod(number int) *corev1.Pod {
	pod := *l.kinds[number%len(l.kinds)]
	pod.Name = fmt.Sprintf("large-%05d", number)
	pod.UID = types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", number))
	pod.ResourceVersion = "1"
	return &pod
}

// ask asks the agent about a pod, and reports whether it knows the pod.
func (l *largest) ask(ctx context.Context, r *rig, number int) bool {
	pod := l.pod(number)
	known, err := facts.Ask(ctx, r.socket(), facts.Request{Namespace: pod.Namespace, Name: pod.Name,
		UID: string(pod.UID)})
	return err == nil && len(known.Containers) == 2
}

func (l *largest) requests() (lists map[string]int, reads int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lists, l.reads
}

func (l *largest) note(list string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reads++; list != "" {
		l.reads--
		l.lists[list]++
	}
}

// ServeHTTP answers as an API server that has only these pods.
func (l *largest) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	var number int
	ofPods := q.URL.Path == "/api/v1/pods"
	_, err := fmt.Sscanf(q.URL.Path[strings.LastIndex(q.URL.Path, "/"):], "/large-%05d", &number)
	query := q.URL.Query()
	switch watch, streamed := query.Get("watch") != "", query.Get("sendInitialEvents") != ""; {
	case q.Method != http.MethodGet:
		w.WriteHeader(http.StatusForbidden)
	case err == nil:
		l.note("")
		answer(w, "", encoded(l.pod(number)))
	case ofPods && !strings.Contains(query.Get("fieldSelector"), "spec.nodeName="+l.node):
		w.WriteHeader(http.StatusForbidden)
	case ofPods && !watch:
		l.note("whole")
		l.list(w)
	case streamed:
		if ofPods {
			l.note("streamed")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "BadRequest", "code": 400}`)
	case watch:
		hold(q.Context(), w)
	case q.URL.Path == "/api/v1/namespaces":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": `+
			`{"resourceVersion": "1"}, "items": []}`)
	default:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": %q}}`,
			q.URL.Path[strings.LastIndex(q.URL.Path, "/")+1:])
	}
}

// answer sends the parts of an answer in Kubernetes' protobuf encoding.
func answer(w http.ResponseWriter, parameters string, parts ...[]byte) {
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+parameters)
	for _, part := range parts {
		_, _ = w.Write(part)
	}
}

// hold is a watch without events.
func hold(ctx context.Context, w http.ResponseWriter) {
	w.(http.Flusher).Flush()
	<-ctx.Done()
}

// magic precedes every object, which is in a message Unknown.
const magic = "k8s\x00"

// Keys of fields with a length, https://protobuf.dev/programming-guides/encoding/#structure.
const (
	field1 = 1<<3 | 2 // in Unknown the type, in a list its metadata
	field2 = 2<<3 | 2 // in Unknown the object, in a list an item
)

func headed(tag byte, size int) []byte { return binary.AppendUvarint([]byte{tag}, uint64(size)) }

// encoded returns a pod in the API server's encoding.
func encoded(pod *corev1.Pod) []byte {
	raw, err := pod.Marshal()
	if err != nil {
		panic(err)
	}
	object, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Raw: raw}).Marshal()
	if err != nil {
		panic(err)
	}
	return append([]byte(magic), object...)
}

// list sends all pods as one object. This process has only one of them in memory at a time.
func (l *largest) list(w http.ResponseWriter) {
	meta, err := (&metav1.ListMeta{ResourceVersion: "1"}).Marshal()
	if err != nil {
		panic(err)
	}
	meta = append(headed(field1, len(meta)), meta...)
	size := len(meta)
	for i := range l.count {
		one := l.pod(i).Size()
		size += len(headed(field2, one)) + one
	}
	kind, err := (&runtime.TypeMeta{APIVersion: "v1", Kind: "PodList"}).Marshal()
	if err != nil {
		panic(err)
	}
	answer(w, "", []byte(magic), headed(field1, len(kind)), kind, headed(field2, size), meta)
	for i := range l.count {
		one, err := l.pod(i).Marshal()
		if err != nil {
			panic(err)
		}
		answer(w, "", headed(field2, len(one)), one)
	}
}
