package kube

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Limits of the single pods: more than a kubelet starts while a watch is away, and longer than a runtime tries to make
// one sandbox.
const (
	maxSingles  = 128
	singlesLast = 10 * time.Minute
)

// singles are pods that were read one by one from the API server and that the watch has not brought yet.
type singles struct {
	mu   sync.Mutex
	pods map[types.UID]single
}

type single struct {
	pod *corev1.Pod
	at  time.Time
}

// KeepSingle stores a pod that was read from the API server until the watch brings it. So the agent knows it if the
// plugin asks again while the API server is away. It does not store a pod that exceeds the limits of the cache.
func (c *Pods) KeepSingle(pod *corev1.Pod) {
	if pod = keep(pod, c.gid); IsPartial(pod) {
		return
	}
	c.singles.put(pod, time.Now())
	if c.knows(pod) { // the watch was faster, and does not bring the pod again
		c.singles.drop(pod.UID)
	}
}

// Single returns a pod that KeepSingle has stored, nil if there is none.
func (c *Pods) Single(namespace, name string) *corev1.Pod {
	return c.singles.named(namespace, name, time.Now())
}

// knows reports whether the watch has brought the pod.
func (c *Pods) knows(pod *corev1.Pod) bool {
	known := c.Named(pod.Namespace, pod.Name)
	return known != nil && known.UID == pod.UID
}

func (s *singles) put(pod *corev1.Pod, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[pod.UID] = single{pod, now}
	for uid, one := range s.pods {
		if now.Sub(one.at) > singlesLast {
			delete(s.pods, uid)
		}
	}
	for len(s.pods) > maxSingles {
		oldest := pod.UID
		for uid, one := range s.pods {
			if one.at.Before(s.pods[oldest].at) {
				oldest = uid
			}
		}
		delete(s.pods, oldest)
	}
}

func (s *singles) named(namespace, name string, now time.Time) (found *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var newest time.Time
	for _, one := range s.pods {
		if one.pod.Namespace == namespace && one.pod.Name == name && now.Sub(one.at) <= singlesLast &&
			!one.at.Before(newest) {
			found, newest = one.pod, one.at
		}
	}
	return found
}

func (s *singles) drop(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, uid)
}
