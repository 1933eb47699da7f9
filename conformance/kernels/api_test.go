package kernels

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	restwatch "k8s.io/client-go/rest/watch"
)

// Names of the chart's objects.
const (
	system    = "istio-pod-network-controller"
	daemonSet = "istio-pod-network-agent"
	agentPod  = daemonSet + "-1"
)

// api stands for the API server of a cluster with one node: its objects as JSON, and exec in the agent's container.
// Other objects do not exist.
type api struct {
	node    *node
	mu      sync.Mutex
	pod     corev1.Pod // the only pod beside the agent's
	version int
	events  []corev1.Event
	changed chan struct{} // closed when the pod changes
}

func newAPI(n *node, pod corev1.Pod) (*api, *httptest.Server) {
	a := &api{node: n, version: 1, pod: pod, changed: make(chan struct{})}
	mux := http.NewServeMux()
	say := func(pattern string, what func(*http.Request) any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(what(r))
		})
	}
	const core, admission = "GET /api/v1", "GET /apis/admissionregistration.k8s.io/v1"
	say("GET /version", func(*http.Request) any { return map[string]string{"gitVersion": "v1.37.0"} })
	say(core+"/nodes", a.nodes)
	say(core+"/nodes/{name}", func(r *http.Request) any { return a.nodes(r).(*corev1.NodeList).Items[0] })
	mux.HandleFunc(core+"/pods", a.pods)
	mux.HandleFunc(core+"/namespaces/{namespace}/pods", a.pods)
	mux.HandleFunc(core+"/namespaces/{namespace}/pods/{name}", a.one)
	say("PATCH /api/v1/namespaces/{namespace}/pods/{name}/status", a.patch)
	mux.HandleFunc(core+"/namespaces/{namespace}/pods/{name}/exec", a.exec)
	say(core+"/namespaces/{namespace}", namespace)
	say(core+"/namespaces/{namespace}/configmaps/{name}", a.configMap)
	say(core+"/namespaces/{namespace}/events", func(*http.Request) any {
		a.mu.Lock()
		defer a.mu.Unlock()
		return &corev1.EventList{TypeMeta: kind("v1", "EventList"), Items: slices.Clone(a.events)}
	})
	say("GET /apis/apps/v1/daemonsets", a.daemonSets)
	say(admission, func(*http.Request) any {
		return &metav1.APIResourceList{TypeMeta: kind("v1", "APIResourceList")}
	})
	say(admission+"/mutatingwebhookconfigurations", func(*http.Request) any {
		return map[string]any{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfigurationList",
			"items": []any{}}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
	})
	return a, httptest.NewServer(mux)
}

func kind(version, name string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: name}
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(&metav1.Status{TypeMeta: kind("v1", "Status"), Status: metav1.StatusFailure,
		Reason: reason, Code: int32(code)})
}

func (a *api) nodes(*http.Request) any {
	n := corev1.Node{TypeMeta: kind("v1", "Node"), ObjectMeta: metav1.ObjectMeta{Name: nodeName,
		Labels: map[string]string{corev1.LabelOSStable: "linux", corev1.LabelHostname: nodeName}}}
	n.Status.NodeInfo = corev1.NodeSystemInfo{KernelVersion: a.node.kernel, OperatingSystem: "linux",
		ContainerRuntimeVersion: "containerd://2.1.4"}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	return &corev1.NodeList{TypeMeta: kind("v1", "NodeList"), Items: []corev1.Node{n}}
}

// agent returns the agent's pod, ready if the agent is.
func (a *api) agent() corev1.Pod {
	pod := corev1.Pod{TypeMeta: kind("v1", "Pod"), ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: agentPod,
		Labels: map[string]string{"app.kubernetes.io/name": daemonSet}}}
	pod.Spec.NodeName, pod.Spec.HostNetwork = nodeName, true
	pod.Spec.Containers = []corev1.Container{{Name: "agent", Image: "agent"}}
	pod.Status.Phase = corev1.PodRunning
	ready := corev1.ConditionFalse
	if a.node.ready() {
		ready = corev1.ConditionTrue
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	return pod
}

// pods lists the agents' pods or the other pod, as the selector asks, or watches the latter.
func (a *api) pods(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	list := &corev1.PodList{TypeMeta: kind("v1", "PodList"), ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	if strings.Contains(r.FormValue("labelSelector"), daemonSet) {
		list.Items = []corev1.Pod{a.agent()}
		_ = json.NewEncoder(w).Encode(list)
		return
	}
	a.watched(w, r, list)
}

// protobuf is the encoding in which the agent watches pods.
var protobuf, _ = runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)

// watched lists the pod for its node's agent, or sends its changes.
func (a *api) watched(w http.ResponseWriter, r *http.Request, list *corev1.PodList) {
	encoder := scheme.Codecs.EncoderForVersion(protobuf.Serializer, corev1.SchemeGroupVersion)
	pod, changed := a.now()
	if r.FormValue("watch") == "" {
		list.Items = []corev1.Pod{pod}
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		_ = encoder.Encode(list, w)
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
	w.WriteHeader(http.StatusOK)
	frames := protobuf.StreamSerializer.NewFrameWriter(w)
	events := restwatch.NewEncoder(streaming.NewEncoder(frames, scheme.Codecs.EncoderForVersion(
		protobuf.StreamSerializer.Serializer, corev1.SchemeGroupVersion)), encoder)
	for {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-changed:
			pod, changed = a.now()
			_ = events.Encode(&watch.Event{Type: watch.Modified, Object: &pod})
		}
	}
}

// now returns the pod's present state, and a channel that is closed when it changes.
func (a *api) now() (corev1.Pod, chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return *a.pod.DeepCopy(), a.changed
}

// change changes the pod.
func (a *api) change(change func(*corev1.Pod)) corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.pod)
	a.version++
	a.pod.ResourceVersion = strconv.Itoa(a.version)
	close(a.changed)
	a.changed = make(chan struct{})
	return *a.pod.DeepCopy()
}

// say adds an Event about the pod.
func (a *api) say(reason, message string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: a.pod.Namespace, Name: "event"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: a.pod.Namespace, Name: a.pod.Name, UID: a.pod.UID},
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message, LastTimestamp: metav1.Now(), Count: 1})
}

func (a *api) one(w http.ResponseWriter, r *http.Request) {
	pod, _ := a.now()
	switch r.PathValue("name") {
	case pod.Name:
	case agentPod:
		pod = a.agent()
	default:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(pod)
}

// patch applies the agent's patch of annotations.
func (a *api) patch(r *http.Request) any {
	var patch struct {
		Metadata struct{ Annotations map[string]string }
	}
	_ = json.NewDecoder(r.Body).Decode(&patch)
	return a.change(func(p *corev1.Pod) {
		for key, value := range patch.Metadata.Annotations {
			p.Annotations[key] = value
		}
	})
}

func namespace(r *http.Request) any {
	meta := metav1.ObjectMeta{Name: r.PathValue("namespace"),
		Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"}}
	if strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadata") {
		return &metav1.PartialObjectMetadata{TypeMeta: kind("meta.k8s.io/v1", "PartialObjectMetadata"), ObjectMeta: meta}
	}
	return &corev1.Namespace{TypeMeta: kind("v1", "Namespace"), ObjectMeta: meta}
}

func (a *api) configMap(r *http.Request) any {
	entry, _ := json.Marshal(a.node.entry)
	return &corev1.ConfigMap{TypeMeta: kind("v1", "ConfigMap"), ObjectMeta: metav1.ObjectMeta{Namespace: system,
		Name: r.PathValue("name")}, Data: map[string]string{"network.json": string(entry)}}
}

func (a *api) daemonSets(*http.Request) any {
	set := appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: daemonSet,
		Labels: map[string]string{"app.kubernetes.io/name": daemonSet}}}
	set.Spec.Template.Spec.Containers = []corev1.Container{{Name: "agent", Args: []string{"--mode=chain"}}}
	set.Status = appsv1.DaemonSetStatus{DesiredNumberScheduled: 1, UpdatedNumberScheduled: 1}
	if a.node.ready() {
		set.Status.NumberReady = 1
	}
	return &appsv1.DaemonSetList{TypeMeta: kind("apps/v1", "DaemonSetList"), Items: []appsv1.DaemonSet{set}}
}

// The streams of exec: k8s.io/apimachinery/pkg/util/remotecommand.
const (
	protocol = "v5.channel.k8s.io"
	stdout   = "\x01"
	stderr   = "\x02"
	status   = "\x03"
)

// exec runs the agent's program on the node, as a runtime does in the agent's container.
func (a *api) exec(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{Subprotocols: []string{protocol}}
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	send := func(channel string, data []byte) {
		_ = c.WriteMessage(websocket.BinaryMessage, append([]byte(channel), data...))
	}
	args := r.URL.Query()["command"]
	out, err := a.node.agentProgram(args[1:]...).Output()
	send(stdout, out)
	ended := metav1.Status{Status: metav1.StatusSuccess}
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		send(stderr, failed.Stderr)
		ended = metav1.Status{Status: metav1.StatusFailure, Reason: "NonZeroExitCode", Message: err.Error()}
	}
	data, _ := json.Marshal(ended)
	send(status, data)
	_ = c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
}
