// Package answer answers the plugin's questions about pods: from the watch's cache, or from the API server if the watch
// is late.
package answer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/facts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Limits for an answer about a pod that is not in the cache.
const (
	answerWithin = 6 * time.Second        // for the whole answer; less than the plugin's default agentTimeout
	watchGrace   = 100 * time.Millisecond // for the watch: the kubelet's own may be a little earlier
	maxRetry     = time.Second
	liveReads    = 16 // at once
)

// codeTryLater is the CNI error code for "try again later": the runtime then retries the pod.
const codeTryLater uint = 11

// Source says where an answer came from.
type Source string

// The sources.
const (
	FromCache Source = "cache"
	FromLive  Source = "live" // the API server
	NoAnswer  Source = "none"
)

// Sources lists all sources.
var Sources = []Source{FromCache, FromLive, NoAnswer}

// Answerer answers the plugin's questions.
type Answerer struct {
	node       string
	pods       *kube.Pods
	namespaces *kube.Namespaces
	reader     kube.PodReader
	answered   func(Source)
	slots      chan struct{} // one for each live read in progress
	within     time.Duration // limits the whole answer
	questions
}

// New returns an Answerer for the pods of a node. It calls answered for every question.
func New(
	node string, pods *kube.Pods, namespaces *kube.Namespaces, reader kube.PodReader, answered func(Source),
) *Answerer {
	return &Answerer{node, pods, namespaces, reader, answered, make(chan struct{}, liveReads), answerWithin,
		questions{}}
}

// Answer answers one question, for facts.Serve. If it finds no answer in time, it returns an error that makes the
// runtime retry the pod.
func (a *Answerer) Answer(ctx context.Context, q facts.Request) facts.Response {
	ctx, cancel := context.WithTimeout(ctx, a.within)
	defer cancel()
	pod, source, err := a.find(ctx, q)
	if err == nil {
		a.note(pod.UID)
		var namespace map[string]string
		if !q.NoNamespace {
			namespace, err = a.namespaces.Annotations(ctx, q.Namespace)
		}
		if err == nil {
			a.answered(source)
			known := podfacts.Of(pod, namespace)
			return facts.Response{Pod: &known}
		}
		err = fmt.Errorf("reading namespace %q: %w", q.Namespace, err)
	}
	a.answered(NoAnswer)
	return facts.Response{Error: &facts.Error{Code: codeTryLater, Message: err.Error()}}
}

// find returns the pod from the cache, or else, after watchGrace, from the API server. If the request fails, it returns
// what the API server said about the pod before, if anything, as the watch would. Otherwise it repeats the request
// until the deadline; meanwhile the watch may deliver the pod.
func (a *Answerer) find(ctx context.Context, q facts.Request) (pod *corev1.Pod, source Source, err error) {
	var failed error
	for pause := watchGrace; ; pause = min(2*pause, maxRetry) {
		if pod := a.cached(ctx, q, pause); pod != nil {
			return pod, FromCache, nil
		}
		if ctx.Err() != nil {
			return nil, "", fmt.Errorf("reading pod %q: %w", q.Namespace+"/"+q.Name, errors.Join(failed, context.Cause(ctx)))
		}
		pod, err := a.live(ctx, q)
		switch {
		case err == nil:
			a.pods.KeepSingle(pod)
			return pod, FromLive, nil
		case apierrors.IsNotFound(err), errors.As(err, new(*otherPodError)):
			return nil, "", err
		}
		if pod := a.pods.Single(q.Namespace, q.Name); pod != nil && kube.IsMeant(pod, q.UID) {
			return pod, FromCache, nil
		}
		if ctx.Err() == nil {
			failed = err // the last error about the API server, not about our deadline
		}
	}
}

// cached waits for the watch to deliver the pod. A pod that is too large for the cache never appears in it.
func (a *Answerer) cached(ctx context.Context, q facts.Request, wait time.Duration) *corev1.Pod {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		changed := a.pods.Changed() // before the read, so that no change is missed
		pod := a.pods.Named(q.Namespace, q.Name)
		if pod != nil && kube.IsMeant(pod, q.UID) && !kube.IsPartial(pod) {
			return pod
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// live reads the pod from the API server.
func (a *Answerer) live(ctx context.Context, q facts.Request) (*corev1.Pod, error) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	pod, err := a.reader.Pod(ctx, q.Namespace, q.Name)
	switch {
	case err != nil:
		return nil, err
	case !kube.IsMeant(pod, q.UID):
		return nil, &otherPodError{fmt.Sprintf("the pod %s/%s has UID %s; the one with UID %s is gone",
			q.Namespace, q.Name, pod.UID, q.UID)}
	case pod.Spec.NodeName != a.node:
		return nil, &otherPodError{fmt.Sprintf("the pod %s/%s is on node %q, and this is the agent of node %q: "+
			"check its --node-name", q.Namespace, q.Name, pod.Spec.NodeName, a.node)}
	}
	return pod, nil
}

// otherPodError says that another pod has the name of the pod in the question.
type otherPodError struct{ text string }

func (e *otherPodError) Error() string { return e.text }
