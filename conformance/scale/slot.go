package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// slot is the place of one replica on a node. Its pods replace each other.
type slot struct {
	number    int
	node      node
	namespace string
	mesh      bool
	made      int // number of pods so far

	pod      *corev1.Pod
	record   record.Record
	recorded time.Time // when the record was written
}

var sandboxes atomic.Int64

// make makes the slot's next pod, as scheduler, kubelet, runtime and plugin do: the object, the plugin's question if an
// agent answers, the record, and the status. A pod outside the mesh has no record, as with the plugin.
func (s *slot) make(ctx context.Context, c *cluster, answered bool) (err error) {
	s.made++
	pod := sandbox.Injected(s.namespace, fmt.Sprintf("cart-%d-%d", s.number, s.made), s.node.name)
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet",
		Name: fmt.Sprintf("cart-%d-%d", s.number, s.made), UID: types.UID(s.namespace), Controller: new(true)}}
	if !s.mesh {
		pod.Annotations = nil
		pod.Spec.InitContainers, pod.Spec.Containers = nil, pod.Spec.Containers[:1]
	}
	if s.pod, err = c.client.CoreV1().Pods(s.namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	number := int(sandboxes.Add(1))
	if s.mesh {
		if answered {
			if err := s.ask(ctx, c); err != nil {
				return err
			}
		}
		s.record = sandbox.Record(s.pod, number)
		if err := s.node.store.Put(s.record); err != nil {
			return err
		}
		s.recorded = time.Now()
	}
	status := fmt.Appendf(nil, `{"status": {"phase": "Running", "startTime": %q, "podIPs": [{"ip": "10.%d.%d.%d"}]}}`,
		time.Now().UTC().Format(time.RFC3339), number>>16&255, number>>8&255, number&255)
	_, err = c.client.CoreV1().Pods(s.namespace).Patch(ctx, s.pod.Name, types.MergePatchType, status,
		metav1.PatchOptions{}, "status")
	return err
}

// ask asks the node's agent, as the plugin does.
func (s *slot) ask(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.observer.sees(ctx, s.pod); err != nil {
		return err
	}
	_, err := facts.Ask(ctx, s.node.socket(), facts.Request{Namespace: s.namespace, Name: s.pod.Name,
		UID: string(s.pod.UID), NoNamespace: !c.watchesNamespaces()})
	return err
}

// replace makes the next pod and removes the one before with its record, as kubelet and plugin do.
func (s *slot) replace(ctx context.Context, c *cluster, answered bool) error {
	c.pace.wait()
	before, record := s.pod, s.record
	if err := s.make(ctx, c, answered); err != nil {
		return err
	}
	if s.mesh { // DEL comes first: a kubelet deletes the object when the sandbox is gone
		if err := s.node.store.Delete(record.ContainerID, record.IfName); err != nil {
			return err
		}
	}
	now := int64(0)
	return c.client.CoreV1().Pods(s.namespace).Delete(ctx, before.Name,
		metav1.DeleteOptions{GracePeriodSeconds: &now})
}

// pace limits how many pass in a second.
type pace struct {
	rate int

	mu   sync.Mutex
	next time.Time
}

func (p *pace) wait() {
	p.mu.Lock()
	if now := time.Now(); p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = at.Add(time.Second / time.Duration(p.rate))
	p.mu.Unlock()
	time.Sleep(time.Until(at))
}
