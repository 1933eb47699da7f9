package kube

import (
	"context"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/plugin/annotation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Namespaces has the one annotation of every namespace that a decision can depend on. There may be thousands, most of
// which have none: what is kept of each is its name. An object of each in a cache of client-go's would be the most that
// the agent has in memory.
type Namespaces struct {
	watched *Watched // nil: none are watched
	read    func(ctx context.Context, name string) (map[string]string, error)

	mu   sync.Mutex
	says map[string]*string // by name; nil is a namespace without the annotation
	all  bool               // the first list has come
}

// NewNamespaces keeps what the metadata says that source lists and watches. read returns the annotations of a namespace
// that the watch has not brought, from the API server.
func NewNamespaces(
	source cache.ListerWatcher, read func(ctx context.Context, name string) (map[string]string, error),
) *Namespaces {
	return &Namespaces{watched: newWatched(source), read: read, says: map[string]*string{}}
}

// NamespacesOnDemand watches none, for an agent whose decisions depend on no namespace: in a cluster of thousands, each
// of which would send its metadata to every node. It reads one when a plugin of other settings asks for it.
func NamespacesOnDemand(read func(ctx context.Context, name string) (map[string]string, error)) *Namespaces {
	return &Namespaces{read: read}
}

// Watched reports whether namespaces are watched at all.
func (c *Namespaces) Watched() bool { return c.watched != nil }

// Run lists and watches until the context ends.
func (c *Namespaces) Run(ctx context.Context) {
	if c.Watched() {
		like := &metav1.PartialObjectMetadata{}
		cache.NewReflectorWithOptions(c.watched, like, namespaceStore{c}, cache.ReflectorOptions{}).RunWithContext(ctx)
	}
}

// Synced reports whether all that is needed of namespaces is known.
func (c *Namespaces) Synced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all || !c.Watched()
}

// Failing is since when nothing is watched, and why: see Watched.
func (c *Namespaces) Failing() (since time.Time, err error) { return c.watched.Failing() }

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
	c.mu.Lock()
	defer c.mu.Unlock()
	value, exists := c.says[name]
	if value == nil {
		return nil, exists
	}
	return map[string]string{annotation.Initialize: *value}, true
}

// namespaceStore is what client-go puts namespaces into.
type namespaceStore struct{ *Namespaces }

// Transformer has client-go keep little of each while a list is streamed.
func (s namespaceStore) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		if full, ok := object.(*metav1.PartialObjectMetadata); ok {
			return &metav1.PartialObjectMetadata{
				ObjectMeta: metav1.ObjectMeta{Name: full.Name, Annotations: relevant(full.Annotations)},
			}, nil
		}
		return object, nil
	}
}

// Add takes note of a namespace.
func (s namespaceStore) Add(object any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	note(s.says, object)
	return nil
}

// Update takes note of what a namespace says now.
func (s namespaceStore) Update(object any) error { return s.Add(object) }

// Delete forgets a namespace.
func (s namespaceStore) Delete(object any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if namespace, ok := object.(*metav1.PartialObjectMetadata); ok {
		delete(s.says, namespace.Name)
	}
	return nil
}

// Replace takes note of a list, in place of all before.
func (s namespaceStore) Replace(list []any, _ string) error {
	says := make(map[string]*string, len(list))
	for _, object := range list {
		note(says, object)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.says, s.all = says, true
	return nil
}

// Resync has nothing to do.
func (namespaceStore) Resync() error { return nil }

func note(says map[string]*string, object any) {
	namespace, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return
	}
	says[namespace.Name] = nil
	if value, present := relevant(namespace.Annotations)[annotation.Initialize]; present {
		says[namespace.Name] = &value
	}
}

// relevant is the part of a namespace's annotations that a decision can depend on.
func relevant(all map[string]string) map[string]string {
	value, present := all[annotation.Initialize]
	if !present {
		return nil
	}
	return map[string]string{annotation.Initialize: word(value)}
}
