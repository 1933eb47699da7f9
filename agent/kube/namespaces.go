package kube

import (
	"context"

	"github.com/istio-pod-network/controller/plugin/annotation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Namespaces has the one annotation of every namespace that a decision can depend on.
type Namespaces struct {
	Cache
	read func(ctx context.Context, name string) (map[string]string, error)
}

// NewNamespaces makes a cache of the metadata that source lists and watches. read returns the annotations of a
// namespace that the watch has not brought, from the API server.
func NewNamespaces(
	source cache.ListerWatcher, read func(ctx context.Context, name string) (map[string]string, error),
) (*Namespaces, error) {
	type metadata = metav1.PartialObjectMetadata
	c, err := newCache(source, &metadata{}, cache.Indexers{}, func(full *metadata) *metadata {
		return &metadata{ObjectMeta: metav1.ObjectMeta{
			Name: full.Name, ResourceVersion: full.ResourceVersion, Annotations: relevant(full.Annotations),
		}}
	})
	return &Namespaces{c, read}, err
}

// NamespacesOnDemand watches none, for an agent whose decisions depend on no namespace: in a cluster of thousands, each
// of which would send its metadata to every node. It reads one when a plugin of other settings asks for it.
func NamespacesOnDemand(read func(ctx context.Context, name string) (map[string]string, error)) *Namespaces {
	return &Namespaces{read: read}
}

// Watched reports whether namespaces are watched at all.
func (c *Namespaces) Watched() bool { return c.informer != nil }

// Run lists and watches until the context ends.
func (c *Namespaces) Run(ctx context.Context) {
	if c.Watched() {
		c.Cache.Run(ctx)
	}
}

// Synced reports whether all that is needed of namespaces is known.
func (c *Namespaces) Synced() bool { return !c.Watched() || c.Cache.Synced() }

// Annotations returns what the namespace says, from the API server if the watch has not brought it yet.
func (c *Namespaces) Annotations(ctx context.Context, name string) (map[string]string, error) {
	if c.Watched() {
		if known, exists := c.Known(name); exists {
			return known, nil
		}
	}
	all, err := c.read(ctx, name)
	return relevant(all), err
}

// Known returns what the watch has brought. Without a watch, where nothing matters, that is nothing.
func (c *Namespaces) Known(name string) (annotations map[string]string, exists bool) {
	if !c.Watched() {
		return nil, true
	}
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
