package kube

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	source "k8s.io/client-go/tools/cache/testing"
)

func singlePod(number int) *corev1.Pod {
	pod := meshPod()
	pod.Name, pod.UID = fmt.Sprint("cart-", number), types.UID(fmt.Sprint("uid-", number))
	return pod
}

// There are never more single pods than maxSingles, and none is kept longer than singlesLast.
func TestSinglesAreBounded(t *testing.T) {
	s := singles{pods: map[types.UID]single{}}
	now := time.Now()
	for i := range maxSingles + 2 {
		s.put(singlePod(i), now.Add(time.Duration(i)*time.Microsecond))
	}
	for number, want := range map[int]bool{0: false, 1: false, 2: true, maxSingles + 1: true} {
		if got := s.named("shop", fmt.Sprint("cart-", number), now); (got != nil) != want {
			t.Errorf("pod %d: %v", number, got)
		}
	}
	later := now.Add(singlesLast + time.Second)
	if got := s.named("shop", "cart-2", later); got != nil {
		t.Errorf("at last: %v", got)
	}
	s.put(singlePod(0), later)
	if len(s.pods) != 1 {
		t.Errorf("%d are kept", len(s.pods))
	}
	again := singlePod(0)
	again.UID = "another"
	s.put(again, later.Add(time.Second))
	if got := s.named("shop", "cart-0", later); got == nil || got.UID != "another" {
		t.Errorf("made again by its name: %v", got)
	}
}

// A pod that the watch has brought is no single pod, whichever comes first. A pod that exceeds the limits is not kept:
// it is read each time.
func TestSingles(t *testing.T) {
	from := source.NewFakeControllerSource()
	from.Add(singlePod(1))
	c, err := NewPods(from, redirect.DefaultSpec().ProxyGID, func(string) {})
	await.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() { defer close(ended); c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	await.Eventually(t, time.Minute, "the list comes", c.Synced)
	large := singlePod(3)
	large.Annotations[annotation.ExcludeOutboundPorts] = strings.Repeat("80,", maxSettings)
	for number, pod := range map[int]*corev1.Pod{1: singlePod(1), 2: singlePod(2), 3: large} {
		c.KeepSingle(pod)
		if got := c.Single("shop", pod.Name); (got != nil) != (number == 2) {
			t.Errorf("pod %d: %v", number, got)
		}
	}
	from.Add(singlePod(2))
	await.Eventually(t, time.Minute, "it is the watch's", func() bool { return c.Single("shop", "cart-2") == nil })
	if c.Named("shop", "cart-2") == nil {
		t.Error("the watch has not brought it")
	}
}
