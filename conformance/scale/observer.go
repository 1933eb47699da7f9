package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// observer watches all pods and stores when they were marked.
type observer struct {
	stop context.CancelFunc

	mu     sync.Mutex
	marked map[types.UID]time.Time
	seen   map[types.UID]bool
}

func observe(client *kubernetes.Clientset) (*observer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{stop: cancel, marked: map[types.UID]time.Time{}, seen: map[types.UID]bool{}}
	informer := cache.NewSharedInformer(cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", "",
		fields.Everything()), &corev1.Pod{}, 0)
	note := func(object any) {
		pod := object.(*corev1.Pod)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.seen[pod.UID] = true
		if _, known := o.marked[pod.UID]; !known && pod.Annotations[annotation.Status] == annotation.Initialized {
			o.marked[pod.UID] = time.Now()
		}
	}
	if err := informer.SetTransform(func(object any) (any, error) {
		if pod, ok := object.(*corev1.Pod); ok { // keeps little of each pod, because there are tens of thousands
			return &corev1.Pod{ObjectMeta: pod.ObjectMeta}, nil
		}
		return object, nil
	}); err != nil {
		cancel()
		return nil, err
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: note,
		UpdateFunc: func(_, object any) { note(object) }}); err != nil {
		cancel()
		return nil, err
	}
	go informer.RunWithContext(ctx)
	return o, nil
}

// took returns how long the marks of the slots' pods took after their records, the shortest first.
func (o *observer) took(slots []*slot) (all []time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range slots {
		if at, marked := o.marked[s.pod.UID]; marked && s.mesh {
			all = append(all, max(at.Sub(s.recorded), 0))
		}
	}
	slices.Sort(all)
	return all
}

// sees waits until the watch has brought the pod, as a kubelet waits for its watch.
func (o *observer) sees(ctx context.Context, pod *corev1.Pod) error {
	for {
		o.mu.Lock()
		seen := o.seen[pod.UID]
		o.mu.Unlock()
		if seen {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the watch does not bring pod %s/%s: %w", pod.Namespace, pod.Name, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// all waits until the mesh pods of all slots are marked, and returns when the last one was.
func (o *observer) all(slots []*slot) (last time.Time, err error) {
	deadline := time.Now().Add(patience)
	for {
		unmarked := 0
		var first *slot
		o.mu.Lock()
		for _, s := range slots {
			at, marked := o.marked[s.pod.UID]
			switch {
			case !s.mesh:
			case !marked:
				unmarked++
				first = s
			case at.After(last):
				last = at
			}
		}
		o.mu.Unlock()
		if unmarked == 0 {
			return last, nil
		}
		if time.Now().After(deadline) {
			return last, fmt.Errorf("within %v %d of %d pods are not marked, one is %s/%s on %s", patience, unmarked,
				len(slots), first.namespace, first.pod.Name, first.node.name)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
