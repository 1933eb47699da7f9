package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

const (
	enforce = "pod-security.kubernetes.io/enforce"
	sidecar = "istio-proxy"
	appUser = 1000
)

// newPod returns a pod whose app calls the server from its start until it gets an answer.
func (v *visit) newPod(name string) *corev1.Pod {
	grace, user, token, yes, no := int64(1), int64(appUser), false, true, false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: v.namespace, Labels: map[string]string{"app": "compare"},
			Annotations: v.pod},
		Spec: corev1.PodSpec{
			NodeSelector:                  map[string]string{corev1.LabelHostname: v.node.Name},
			TerminationGracePeriodSeconds: &grace, AutomountServiceAccountToken: &token,
			Containers: []corev1.Container{{
				Name: "app", Image: podImage, ImagePullPolicy: corev1.PullNever,
				Command: []string{"/podprogram", "app", "-once", "-every=50ms", v.peer.url(name)},
				SecurityContext: &corev1.SecurityContext{RunAsUser: &user, RunAsNonRoot: &yes,
					AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
					SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			}},
		},
	}
}

// watch stores when each pod of a namespace was first seen to be ready.
type watch struct {
	mu    sync.Mutex
	ready map[string]time.Time
	stop  func()
}

// watchPods starts a watch.
func (b *bench) watchPods(ctx context.Context, namespace string) (*watch, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{ready: map[string]time.Time{}}
	factory := informers.NewSharedInformerFactoryWithOptions(b.cluster.Client, 0, informers.WithNamespace(namespace))
	w.stop = func() { cancel(); factory.Shutdown() }
	informer := factory.Core().V1().Pods().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: w.see,
		UpdateFunc: func(_, object any) { w.see(object) }})
	factory.Start(ctx.Done())
	if err == nil && !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		err = ctx.Err()
	}
	return w, err
}

func (w *watch) see(object any) {
	pod := object.(*corev1.Pod)
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			w.mu.Lock()
			if _, known := w.ready[pod.Name]; !known {
				w.ready[pod.Name] = time.Now()
			}
			w.mu.Unlock()
		}
	}
}

// at returns when a pod was first ready.
func (w *watch) at(pod string) (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ready := w.ready[pod]
	return at, ready
}

// come creates pods, measures them, and deletes them. It calls meanwhile as soon as they are created. If that returns a
// time, the pods' time counts from then.
func (v *visit) come(ctx context.Context, m *measurement, pods int, limit time.Duration,
	meanwhile func() (time.Time, error)) error {
	names := make([]string, pods)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d-%s-%d-%d", v.key, m.Round, m.Part, m.Number, i)
	}
	before, err := v.spent()
	if err != nil {
		return err
	}
	made := time.Now()
	start := made
	if err := v.make(ctx, names); err != nil {
		return err
	}
	if meanwhile != nil {
		from, err := meanwhile()
		if err != nil {
			return err
		}
		if !from.IsZero() {
			start = from
		}
	}
	m.Count, m.outcome = pods, v.settle(ctx, names, start, limit)
	after, err := v.spent()
	if err != nil {
		return err
	}
	m.usage = after.since(before)
	if m.Requests, err = v.requests(made); err != nil {
		return err
	}
	return v.remove(ctx, names)
}

// make creates pods one after the other. It tries again while the API server or the injector is away.
func (v *visit) make(ctx context.Context, names []string) error {
	for _, name := range names {
		var failed error
		err := until(ctx, "pod "+name+" is made", func() (bool, error) {
			_, failed = v.cluster.Client.CoreV1().Pods(v.namespace).Create(ctx, v.newPod(name), metav1.CreateOptions{})
			return failed == nil || apierrors.IsAlreadyExists(failed), nil
		})
		if err != nil {
			return fmt.Errorf("%w: %w", err, failed)
		}
	}
	return nil
}

// settle waits until every pod is ready and has its answer, or until the limit.
func (v *visit) settle(ctx context.Context, names []string, start time.Time, limit time.Duration) outcome {
	for {
		o, done := v.outcome(names, start)
		if done || time.Since(start) > limit || ctx.Err() != nil {
			return o
		}
		time.Sleep(pollEvery)
	}
}

// outcome returns the pods' state so far, and whether it is final.
func (v *visit) outcome(names []string, start time.Time) (o outcome, done bool) {
	done = true
	for _, name := range names {
		ready, isReady := v.watch.at(name)
		request, arrived := v.peer.first(name, v.direct)
		if _, past := v.peer.first(name, true); past && !v.direct {
			o.Leaked++
			arrived, request = true, start // the app has its answer and sends no more requests
		}
		if isReady {
			o.Ready = max(o.Ready, ready.Sub(start).Seconds())
		} else {
			o.Stuck++
		}
		if !arrived {
			o.Silent++
		} else {
			o.Request = max(o.Request, request.Sub(start).Seconds())
		}
		done = done && isReady && arrived
	}
	return o, done
}

// remove deletes pods and waits until they are gone.
func (v *visit) remove(ctx context.Context, names []string) error {
	pods := v.cluster.Client.CoreV1().Pods(v.namespace)
	for _, name := range names {
		err := until(ctx, "pod "+name+" is being deleted", func() (bool, error) {
			err := pods.Delete(ctx, name, metav1.DeleteOptions{})
			if apierrors.IsNotFound(err) {
				err = nil
			}
			return true, err
		})
		if err != nil {
			return err
		}
	}
	return v.empty(ctx)
}

// empty waits until the way has no pods.
func (v *visit) empty(ctx context.Context) error {
	return until(ctx, "the pods are gone", func() (bool, error) {
		list, err := v.cluster.Client.CoreV1().Pods(v.namespace).List(ctx, metav1.ListOptions{})
		return err == nil && len(list.Items) == 0, err
	})
}
