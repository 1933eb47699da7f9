package agent

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// requestTimeout bounds every request but a watch. An API server that hangs is as good as one that is down.
const requestTimeout = 5 * time.Second

var (
	podsResource       = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	namespacesResource = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
)

// apiServer makes the agent's requests; agent/rbac.yaml allows no others. It knows the types of core/v1 alone: those of
// all of Kubernetes would make the program half as big again.
type apiServer struct {
	core     rest.Interface
	metadata metadata.Interface
}

// connect reads the credentials and sets the client up; it sends nothing yet.
func connect(o options) (*apiServer, error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig) // without a file: the pod's service account
	if err != nil {
		return nil, fmt.Errorf("reading the credentials for the API server: %w; outside a pod use --kubeconfig", err)
	}
	config.UserAgent = "istio-pod-network-agent/" + buildVersion()
	config.QPS, config.Burst = float32(o.qps), o.burst
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	forCore := rest.CopyConfig(config)
	forCore.APIPath, forCore.GroupVersion = "/api", &corev1.SchemeGroupVersion
	forCore.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	core, err := rest.RESTClientFor(forCore)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &apiServer{core, meta}, nil
}

// podsOf lists and watches the pods of one node.
func (a *apiServer) podsOf(node string) cache.ListerWatcher {
	return cache.NewListWatchFromClient(a.core, podsResource.Resource, "", fields.OneTermEqualSelector("spec.nodeName", node))
}

// pod reads one pod.
func (a *apiServer) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var pod corev1.Pod
	err := a.core.Get().Namespace(namespace).Resource(podsResource.Resource).Name(name).Do(ctx).Into(&pod)
	return &pod, err
}

// namespace reads the annotations of one namespace.
func (a *apiServer) namespace(ctx context.Context, name string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	object, err := a.metadata.Resource(namespacesResource).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return object.Annotations, nil
}

// runtimeVersion reads which container runtime a node has, such as "containerd://2.1.4".
func (a *apiServer) runtimeVersion(ctx context.Context, node string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var object corev1.Node
	err := a.core.Get().Resource("nodes").Name(node).Do(ctx).Into(&object)
	return object.Status.NodeInfo.ContainerRuntimeVersion, err
}

// mark sends a merge patch of a pod's annotations, by way of its status: the right to patch pods themselves would include
// their specification.
func (a *apiServer) mark(ctx context.Context, namespace, name string, patch []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := a.metadata.Resource(podsResource).Namespace(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// deletePod deletes a pod, and no other one of its name.
func (a *apiServer) deletePod(ctx context.Context, namespace, name, uid string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	id := types.UID(uid)
	return a.metadata.Resource(podsResource).Namespace(namespace).Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &id}})
}

// isGone reports whether the answer to a patch with a UID says that this pod does not exist any more: its name is free, or
// taken by another pod, whose UID cannot be changed.
func isGone(err error) bool {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return true
	}
	// Other fields may be invalid too: a pod has room for 256 KiB of annotations.
	cause, found := apierrors.StatusCause(err, metav1.CauseTypeFieldValueInvalid)
	return apierrors.IsInvalid(err) && found && cause.Field == "metadata.uid"
}

// isRefusal reports whether the API server will not take a request however often it is repeated.
func isRefusal(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// eventSink writes Events by the same client.
type eventSink struct{ core rest.Interface }

func (s eventSink) request(verb string, e *corev1.Event) *rest.Request {
	return s.core.Verb(verb).Namespace(e.Namespace).Resource("events")
}

// Create writes a new Event.
func (s eventSink) Create(e *corev1.Event) (*corev1.Event, error) {
	return s.do(s.request(http.MethodPost, e).Body(e))
}

// Update is not used by the recorder, which patches.
func (s eventSink) Update(e *corev1.Event) (*corev1.Event, error) {
	return s.do(s.request(http.MethodPut, e).Name(e.Name).Body(e))
}

// Patch counts an Event up.
func (s eventSink) Patch(e *corev1.Event, data []byte) (*corev1.Event, error) {
	return s.do(s.core.Patch(types.StrategicMergePatchType).Namespace(e.Namespace).Resource("events").Name(e.Name).Body(data))
}

func (s eventSink) do(request *rest.Request) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	var result corev1.Event
	err := request.Do(ctx).Into(&result)
	return &result, err
}
