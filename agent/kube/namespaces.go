package kube

import (
	"context"
	"time"

	"github.com/istio-pod-network/controller/plugin/annotation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Namespaces has the one annotation of every namespace that a decision can depend on.
type Namespaces struct {
	watched  *Watched
	informer cache.SharedIndexInformer
	read     func(ctx context.Context, name string) (map[string]string, error)
}

// NewNamespaces makes a cache of the metadata that source lists and watches. read returns the annotations of a
// namespace that the watch has not brought, from the API server.
func NewNamespaces(
	source cache.ListerWatcher, read func(ctx context.Context, name string) (map[string]string, error),
) (*Namespaces, error) {
	watched := newWatched(source)
	informer := cache.NewSharedIndexInformer(watched, &metav1.PartialObjectMetadata{}, 0, cache.Indexers{})
	return &Namespaces{watched, informer, read}, informer.SetTransform(func(object any) (any, error) {
		full, ok := object.(*metav1.PartialObjectMetadata)
		if !ok {
			return object, nil
		}
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: full.Name, ResourceVersion: full.ResourceVersion, Annotations: relevant(full.Annotations),
		}}, nil
	})
}

// Run lists and watches until the context ends.
func (c *Namespaces) Run(ctx context.Context) { c.informer.RunWithContext(ctx) }

// Synced reports whether the first list has come.
func (c *Namespaces) Synced() bool { return c.informer.HasSynced() }

// Failing is since when the namespaces are not watched, and why: see Watched.
func (c *Namespaces) Failing() (since time.Time, err error) { return c.watched.Failing() }

// Annotations returns what the namespace says, from the API server if the watch has not brought it yet.
func (c *Namespaces) Annotations(ctx context.Context, name string) (map[string]string, error) {
	if known, exists := c.Known(name); exists {
		return known, nil
	}
	all, err := c.read(ctx, name)
	return relevant(all), err
}

// Known returns what the watch has brought.
func (c *Namespaces) Known(name string) (annotations map[string]string, exists bool) {
	object, exists, _ := c.informer.GetStore().GetByKey(name)
	if !exists {
		return nil, false
	}
	return object.(*metav1.PartialObjectMetadata).Annotations, true
}

// relevant is the part of a namespace's annotations that a decision can depend on.
func relevant(all map[string]string) map[string]string {
	value, present := all[annotation.Initialize]
	if !present {
		return nil
	}
	return map[string]string{annotation.Initialize: word(value)}
}
