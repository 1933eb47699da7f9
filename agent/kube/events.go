package kube

import (
	"context"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
)

// EventRecorder returns a recorder that writes Events as the agent of that node. The caller has to call stop in the
// end.
func (c *Client) EventRecorder(node string) (recorder record.EventRecorder, stop func()) {
	broadcaster := record.NewBroadcaster() // with client-go's limits for each object: 25 at once, then one in 5 min
	broadcaster.StartRecordingToSink(eventSink{c.core})
	source := corev1.EventSource{Component: "istio-pod-network-agent", Host: node}
	return broadcaster.NewRecorder(runtime.NewScheme(), source), broadcaster.Shutdown
}

// eventSink writes Events with the agent's client.
type eventSink struct{ core rest.Interface }

func (s eventSink) request(verb string, e *corev1.Event) *rest.Request {
	return s.core.Verb(verb).Namespace(e.Namespace).Resource("events")
}

// Create writes a new Event.
func (s eventSink) Create(e *corev1.Event) (*corev1.Event, error) {
	return s.do(s.request(http.MethodPost, e).Body(e))
}

// Update replaces an Event. The recorder does not call it: it patches.
func (s eventSink) Update(e *corev1.Event) (*corev1.Event, error) {
	return s.do(s.request(http.MethodPut, e).Name(e.Name).Body(e))
}

// Patch increases the count of an Event.
func (s eventSink) Patch(e *corev1.Event, data []byte) (*corev1.Event, error) {
	return s.do(s.core.Patch(types.StrategicMergePatchType).
		Namespace(e.Namespace).Resource("events").Name(e.Name).Body(data))
}

func (s eventSink) do(request *rest.Request) (*corev1.Event, error) {
	var result corev1.Event
	err := do(context.Background(), request).Into(&result)
	return &result, err
}

// NodeEvents returns a function that writes Events about that node, in the namespace default. The caller has to call
// stop in the end.
func (c *Client) NodeEvents(node string) (tell func(reason, message string), stop func()) {
	recorder, stop := c.EventRecorder(node)
	about := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node, UID: types.UID(node)} // as the kubelet
	return func(reason, message string) { recorder.Event(about, corev1.EventTypeNormal, reason, message) }, stop
}
