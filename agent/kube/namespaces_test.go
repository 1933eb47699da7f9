package kube

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	source "k8s.io/client-go/tools/cache/testing"
)

// If no decision depends on a namespace, none is watched. A namespace that a plugin with other settings asks for is
// read.
func TestNamespacesOnDemand(t *testing.T) {
	says := map[string]string{annotation.Initialize: "true"}
	reads := 0
	c := NamespacesOnDemand(func(context.Context, string) (map[string]string, error) { reads++; return says, nil })
	c.Run(t.Context()) // returns at once, because nothing is watched
	if annotations, known := c.Known("shop"); !c.Synced() || c.Watched() || !known || annotations != nil || reads > 0 {
		t.Errorf("synced %t, watched %t, known %t: %v, after %d reads", c.Synced(), c.Watched(), known, annotations, reads)
	}
	if got, err := c.Annotations(t.Context(), "shop"); err != nil || !maps.Equal(got, says) || reads != 1 {
		t.Errorf("%v, %v after %d reads", got, err, reads)
	}
}

// The cache has the annotations from the list, and follows the watch, also when they or the namespace are removed.
func TestNamespacesFollow(t *testing.T) {
	from := source.NewFakeControllerSource()
	namespace := func(name string, annotations map[string]string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}}
	}
	says, other := map[string]string{annotation.Initialize: "true"}, map[string]string{"example.com/owner": "team"}
	from.Add(namespace("listed", says))
	from.Add(namespace("silent", other))
	c := NewNamespaces(from, nil)
	if _, known := c.Known("listed"); known || c.Synced() || !c.Watched() {
		t.Errorf("before the list: known %t, synced %t, watched %t", known, c.Synced(), c.Watched())
	}
	ctx, end := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	t.Cleanup(func() { end(); ended.Wait() })
	ended.Go(func() { c.Run(ctx) })
	expect := func(name string, want map[string]string, exists bool) {
		t.Helper()
		var got map[string]string
		var known bool
		await.Eventually(t, time.Minute, name, func() bool {
			got, known = c.Known(name)
			return known == exists && maps.Equal(got, want)
		})
	}
	await.Eventually(t, time.Minute, "the list has come", c.Synced)
	if got, known := c.Known("silent"); !known || got != nil {
		t.Errorf("a namespace without the annotation: %t, %v", known, got)
	}
	expect("listed", says, true)
	from.Modify(namespace("listed", other))
	expect("listed", nil, true)
	from.Modify(namespace("silent", says))
	expect("silent", says, true)
	from.Add(namespace("added", says))
	expect("added", says, true)
	from.Delete(namespace("silent", nil))
	expect("silent", nil, false)
}
