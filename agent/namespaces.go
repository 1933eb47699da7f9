package agent

import (
	"context"

	"github.com/istio-pod-network/controller/plugin/redirect"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// namespaceCache has the one annotation of every namespace that a decision can depend on.
type namespaceCache struct {
	informer cache.SharedIndexInformer
	read     func(ctx context.Context, name string) (map[string]string, error) // from the API server
}

func newNamespaceCache(api *apiServer) (*namespaceCache, error) {
	client := api.metadata.Resource(namespacesResource)
	// Package metadatainformer would bring in the types of all of Kubernetes.
	informer := cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}, &metav1.PartialObjectMetadata{}, 0, cache.Indexers{})
	return &namespaceCache{informer, api.namespace}, informer.SetTransform(func(object any) (any, error) {
		full, ok := object.(*metav1.PartialObjectMetadata)
		if !ok {
			return object, nil
		}
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: full.Name, ResourceVersion: full.ResourceVersion, Annotations: relevant(full.Annotations),
		}}, nil
	})
}

func (c *namespaceCache) run(ctx context.Context) { c.informer.RunWithContext(ctx) }

func (c *namespaceCache) synced() bool { return c.informer.HasSynced() }

// annotations returns what the namespace says, from the API server if the watch has not brought it yet.
func (c *namespaceCache) annotations(ctx context.Context, name string) (map[string]string, error) {
	if known, exists := c.known(name); exists {
		return known, nil
	}
	all, err := c.read(ctx, name)
	return relevant(all), err
}

// known returns what the cache has.
func (c *namespaceCache) known(name string) (annotations map[string]string, exists bool) {
	object, exists, _ := c.informer.GetStore().GetByKey(name)
	if !exists {
		return nil, false
	}
	return object.(*metav1.PartialObjectMetadata).Annotations, true
}

// relevant is the part of a namespace's annotations that a decision can depend on.
func relevant(all map[string]string) map[string]string {
	value, present := all[redirect.KeyInitialize]
	if !present {
		return nil
	}
	return map[string]string{redirect.KeyInitialize: value}
}
