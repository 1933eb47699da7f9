package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/istio-pod-network/controller/internal/buildinfo"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// podReads is how many pods are read at the same time. One pod may have 1.5 MiB, and takes three times that while it is
// decoded.
const podReads = 4

// fieldManager is the agent's name in managedFields. The chart's admission policies check for it.
const fieldManager = "istio-pod-network-agent"

// requestTimeout limits every request except a watch, unless Patient gives more. An API server that hangs is treated as
// one that is down.
const requestTimeout = 5 * time.Second

// patientTimeout limits the requests with a context from Patient. API priority and fairness may keep a request in its
// queue for up to 15 s, a quarter of the API server's --request-timeout. If the client cancels it there, it counts as
// rejected, and the next attempt starts at the end of the queue. With a shorter limit, the agents' requests after a
// restart of all of them would cost the API server time and bring nothing.
const patientTimeout = 30 * time.Second

// patience is the key of the context value that Patient sets.
type patience struct{}

// Patient returns a context in which each request may take 30 s instead of 5 s. It is for requests in the background
// that all agents may send at the same time.
func Patient(ctx context.Context) context.Context { return context.WithValue(ctx, patience{}, true) }

// Timeout returns the time limit of one request with this context.
func Timeout(ctx context.Context) time.Duration {
	if ctx.Value(patience{}) != nil {
		return patientTimeout
	}
	return requestTimeout
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, Timeout(ctx))
}

var (
	podsResource       = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	namespacesResource = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
)

// Client makes the agent's requests. The chart's rbac.yaml allows no others. It knows the types of core/v1 alone: all
// of Kubernetes' types would make the program half as large again.
type Client struct {
	core     rest.Interface
	metadata metadata.Interface
	reads    chan struct{} // a semaphore for reads of single pods
}

// PodReader reads one pod from the API server. It returns the API server's errors.
type PodReader interface {
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
}

// Config says how to reach the API server.
type Config struct {
	Kubeconfig string  // path; "" means the pod's service account
	QPS        float64 // average requests per second
	Burst      int     // requests at once

	// Count is called after every request, if it is not nil. code is the HTTP status, "<error>" if no answer came.
	Count func(method, code string)
}

// Connect reads the credentials and returns a client. It sends no request. Its errors are about the kubeconfig or the
// service account.
func Connect(c Config) (*Client, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the credentials for the API server: %w; outside a pod use --kubeconfig", err)
	}
	config.UserAgent = fieldManager + "/" + buildinfo.Version()
	config.QPS, config.Burst = float32(c.QPS), c.Burst
	if c.Count != nil {
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counting{next, c.Count} })
	}
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
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
	return &Client{core, meta, make(chan struct{}, podReads)}, nil
}

// counting counts the requests of one client. client-go's package metrics counts those of the whole process.
type counting struct {
	http.RoundTripper
	count func(method, code string)
}

// RoundTrip sends the request and counts it.
func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := c.RoundTripper.RoundTrip(r)
	code := "<error>"
	if err == nil {
		code = strconv.Itoa(response.StatusCode)
	}
	c.count(r.Method, code)
	return response, err
}

// WrappedRoundTripper lets client-go reach the transport below.
func (c counting) WrappedRoundTripper() http.RoundTripper { return c.RoundTripper }

// do sends a request with the time limit of its context.
func do(ctx context.Context, request *rest.Request) rest.Result {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return request.Do(ctx)
}

// Pod reads one pod and returns the part of it that the agent uses.
func (c *Client) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	select {
	case c.reads <- struct{}{}:
		defer func() { <-c.reads }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var pod corev1.Pod
	err := do(ctx, c.core.Get().Namespace(namespace).Resource(podsResource.Resource).Name(name)).Into(&pod)
	return trim(&pod), err
}

// Namespaces returns a source that lists and watches the metadata of all namespaces.
func (c *Client) Namespaces() cache.ListerWatcher {
	namespaces := c.metadata.Resource(namespacesResource)
	// Package metadatainformer would bring in the types of all of Kubernetes.
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return namespaces.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return namespaces.Watch(ctx, o)
		},
	}
}

// NamespaceAnnotations reads the annotations of one namespace.
func (c *Client) NamespaceAnnotations(ctx context.Context, name string) (map[string]string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	object, err := c.metadata.Resource(namespacesResource).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return object.Annotations, nil
}

// RuntimeVersion reads a node's container runtime and its version, such as "containerd://2.1.4".
func (c *Client) RuntimeVersion(ctx context.Context, node string) (string, error) {
	var object corev1.Node
	err := do(ctx, c.core.Get().Resource("nodes").Name(node)).Into(&object)
	return object.Status.NodeInfo.ContainerRuntimeVersion, err
}

// PatchPod sends a merge patch of a pod's annotations to the subresource status. The right to patch pods themselves
// would also allow changes to their specification.
func (c *Client) PatchPod(ctx context.Context, namespace, name string, patch []byte) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	pods := c.metadata.Resource(podsResource).Namespace(namespace)
	options := metav1.PatchOptions{FieldManager: fieldManager}
	_, err := pods.Patch(ctx, name, types.MergePatchType, patch, options, "status")
	return err
}

// DeletePod deletes the pod with that UID, and no other pod of the same name.
func (c *Client) DeletePod(ctx context.Context, namespace, name string, uid types.UID) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
	return c.metadata.Resource(podsResource).Namespace(namespace).Delete(ctx, name, options)
}

// RemoveTaint removes a node's taints with that key, and reports whether there were any. If somebody else changes the
// node meanwhile, it reads the node again.
func (c *Client) RemoveTaint(ctx context.Context, node, key string) (removed bool, err error) {
	for {
		var object corev1.Node
		if err := do(ctx, c.core.Get().Resource("nodes").Name(node)).Into(&object); err != nil {
			return false, err
		}
		left := slices.DeleteFunc(slices.Clone(object.Spec.Taints), func(t corev1.Taint) bool { return t.Key == key })
		if len(left) == len(object.Spec.Taints) {
			return false, nil
		}
		taints, err := json.Marshal(left)
		if err != nil {
			return false, err
		}
		patch := fmt.Appendf(nil, `{"metadata": {"resourceVersion": %q}, "spec": {"taints": %s}}`,
			object.ResourceVersion, taints)
		err = do(ctx, c.core.Patch(types.MergePatchType).Resource("nodes").Name(node).
			Param("fieldManager", fieldManager).Body(patch)).Error()
		if !apierrors.IsConflict(err) {
			return err == nil, err
		}
	}
}

// IsGone reports whether the error of a patch with a UID means that this pod does not exist any more: its name is free,
// or another pod has it, whose UID cannot be changed.
func IsGone(err error) bool {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return true
	}
	// Another field may be invalid, for example annotations of more than 256 KiB in all.
	cause, found := apierrors.StatusCause(err, metav1.CauseTypeFieldValueInvalid)
	return apierrors.IsInvalid(err) && found && cause.Field == "metadata.uid"
}

// MayBeDone reports whether the API server may have done a request although it failed: the answer was lost, or came too
// late.
func MayBeDone(err error) bool {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsInternalError(err) ||
			status.Status().Code == http.StatusGatewayTimeout
	}
	return err != nil
}

// IsRefusal reports whether the API server rejects the request, so that it would fail again if it were repeated.
func IsRefusal(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsRequestEntityTooLargeError(err)
}
