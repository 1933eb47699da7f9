package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/istio-pod-network/controller/plugin/facts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Bounds of an answer that the watch has not brought.
const (
	answerWithin = 6 * time.Second        // for all of it: below the plugin's default agentTimeout
	watchGrace   = 100 * time.Millisecond // for the watch, before the API server is asked: the kubelet's own may be a little ahead
	maxRetry     = time.Second
	liveReads    = 16 // at once
)

// codeTryLater is CNI's code for a question that may be answered later; the runtime then tries the pod again.
const codeTryLater uint = 11

// Where an answer came from, for the metric.
const (
	fromCache = "cache"
	fromLive  = "live"
	noAnswer  = "none"
)

// answerer answers the plugin's questions.
type answerer struct {
	node       string
	pods       *podCache
	namespaces *namespaceCache
	read       func(ctx context.Context, namespace, name string) (*corev1.Pod, error) // from the API server
	slots      chan struct{}                                                          // one per live read under way
	answered   func(source string)
}

// answer is what facts.Serve calls.
func (a *answerer) answer(ctx context.Context, q facts.Request) facts.Response {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	pod, source, err := a.find(ctx, q)
	if err == nil {
		var namespace map[string]string
		if namespace, err = a.namespaces.annotations(ctx, q.Namespace); err == nil {
			a.answered(source)
			known := factsOf(pod, namespace)
			return facts.Response{Pod: &known}
		}
		err = fmt.Errorf("reading namespace %q: %w", q.Namespace, err)
	}
	a.answered(noAnswer)
	return facts.Response{Error: &facts.Error{Code: codeTryLater, Message: err.Error()}}
}

// find returns the pod from the cache, else, after a moment for the watch, from the API server. Requests that fail are
// repeated as long as the question lasts; meanwhile the watch may bring the pod after all.
func (a *answerer) find(ctx context.Context, q facts.Request) (pod *corev1.Pod, source string, err error) {
	var failed error
	for pause := watchGrace; ; pause = min(2*pause, maxRetry) {
		if pod := a.cached(ctx, q, pause); pod != nil {
			return pod, fromCache, nil
		}
		if ctx.Err() != nil {
			return nil, "", fmt.Errorf("reading pod %q: %w", q.Namespace+"/"+q.Name, errors.Join(failed, context.Cause(ctx)))
		}
		pod, err := a.live(ctx, q)
		switch {
		case err == nil:
			return pod, fromLive, nil
		case apierrors.IsNotFound(err), errors.As(err, new(*otherPodError)):
			return nil, "", err
		case ctx.Err() == nil:
			failed = err // the last one that is about the API server and not about our deadline
		}
	}
}

// cached waits for a while until the watch has brought the pod.
func (a *answerer) cached(ctx context.Context, q facts.Request, wait time.Duration) *corev1.Pod {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		changed := a.pods.changed() // before the look, so that no change falls between
		if pod := a.pods.named(q.Namespace, q.Name); pod != nil && isMeant(pod, q.UID) {
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
func (a *answerer) live(ctx context.Context, q facts.Request) (*corev1.Pod, error) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	pod, err := a.read(ctx, q.Namespace, q.Name)
	switch {
	case err != nil:
		return nil, err
	case !isMeant(pod, q.UID):
		return nil, &otherPodError{fmt.Sprintf("the pod %s/%s has UID %s; the one with UID %s is gone", q.Namespace, q.Name, pod.UID, q.UID)}
	case pod.Spec.NodeName != a.node:
		return nil, &otherPodError{fmt.Sprintf("the pod %s/%s is on node %q, and this is the agent of node %q: check its --node-name",
			q.Namespace, q.Name, pod.Spec.NodeName, a.node)}
	}
	trimmed, err := trim(pod)
	if err != nil {
		return nil, err
	}
	return trimmed.(*corev1.Pod), nil
}

// otherPodError says that the name is that of another pod than the one the plugin is called for.
type otherPodError struct{ text string }

func (e *otherPodError) Error() string { return e.text }

// isMeant reports whether the pod is the one with that UID. The runtime knows a static pod by its hash; the UID is that of
// its image. Some runtimes give none.
func isMeant(pod *corev1.Pod, uid string) bool {
	return uid == "" || uid == string(pod.UID) || uid == pod.Annotations[keyConfigHash]
}
