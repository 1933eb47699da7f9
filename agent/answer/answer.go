// Package answer answers the plugin's questions about pods: from the watch, or from the API server where the watch is
// late.
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

// Bounds of an answer that the watch has not brought.
const (
	answerWithin = 6 * time.Second        // for all of it: below the plugin's default agentTimeout
	watchGrace   = 100 * time.Millisecond // for the watch, which the kubelet's own may be a little ahead of
	maxRetry     = time.Second
	liveReads    = 16 // at once
)

// codeTryLater is CNI's code for a question that may be answered later; the runtime then tries the pod again.
const codeTryLater uint = 11

// Source is where an answer came from.
type Source string

// The sources.
const (
	FromCache Source = "cache"
	FromLive  Source = "live" // the API server
	NoAnswer  Source = "none"
)

// Sources lists them all.
var Sources = []Source{FromCache, FromLive, NoAnswer}

// Answerer answers the plugin's questions.
type Answerer struct {
	node       string
	pods       *kube.Pods
	namespaces *kube.Namespaces
	reader     kube.PodReader
	answered   func(Source)
	slots      chan struct{} // one per live read under way
	questions
}

// New returns an Answerer for the pods of a node. It calls answered for every question.
func New(
	node string, pods *kube.Pods, namespaces *kube.Namespaces, reader kube.PodReader, answered func(Source),
) *Answerer {
	return &Answerer{node, pods, namespaces, reader, answered, make(chan struct{}, liveReads), questions{}}
}

// Answer is what facts.Serve calls. A question that cannot be answered in time gets an error that has the runtime try
// the pod again.
func (a *Answerer) Answer(ctx context.Context, q facts.Request) facts.Response {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
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

// find returns the pod from the cache, else, after a moment for the watch, from the API server. If that fails, what it
// said of the pod before counts, as what the watch brought would. Else requests are repeated as long as the question
// lasts; meanwhile the watch may bring the pod after all.
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
			failed = err // the last one that is about the API server and not about our deadline
		}
	}
}

// cached waits for a while until the watch has brought the pod. One that is too large to be kept is not in the cache.
func (a *Answerer) cached(ctx context.Context, q facts.Request, wait time.Duration) *corev1.Pod {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		changed := a.pods.Changed() // before the look, so that no change falls between
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

// live asks the API server.
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

// otherPodError says that the name is that of another pod than the one the plugin is called for.
type otherPodError struct{ text string }

func (e *otherPodError) Error() string { return e.text }
