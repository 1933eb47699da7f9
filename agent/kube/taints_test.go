package kube

import (
	"context"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cachetesting "k8s.io/client-go/tools/cache/testing"
)

// The node's taints are known once the first list has come, and follow the watch.
func TestTaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := cachetesting.NewFakeControllerSource()
		taints, err := NewTaints(source)
		if err != nil {
			t.Fatal(err)
		}
		want := func(when string, have, known bool) {
			t.Helper()
			synctest.Wait()
			if h, k := taints.Have("k"); h != have || k != known {
				t.Errorf("%s: have is %t, known is %t, want %t, %t", when, h, k, have, known)
			}
		}
		node := func(keys ...string) *corev1.Node {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
			for _, key := range keys {
				n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
			}
			return n
		}
		want("before the list", false, false)
		source.Add(node("other", "k"))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); taints.Run(ctx) }()
		want("born with it", true, true)
		source.Modify(node("other"))
		want("removed", false, true)
		source.Modify(node("k", "k"))
		want("given again", true, true)
		source.Delete(node("k"))
		want("the node is gone", false, true)
		stop()
		<-done
		source.Shutdown()
	})
}
