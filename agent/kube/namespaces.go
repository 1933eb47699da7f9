package kube

import (
	"context"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/plugin/annotation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Namespaces has the one annotation of every namespace on which a decision can depend. There may be thousands of
// namespaces, and most do not have it, so only the name is kept. Objects in a cache of client-go would take more memory
// than anything else in the agent.
type Namespaces struct {
	watched *Watched // nil if namespaces are not watched
	read    func(ctx context.Context, name string) (map[string]string, error)

	mu   sync.Mutex
	says map[string]*string // value of the annotation by namespace; nil if the namespace does not have it
	all  bool               // the first list has come
}

// NewNamespaces returns a cache of the namespaces that source lists and watches. read reads the annotations of a
// namespace that the watch has not brought from the API server.
func NewNamespaces(
	source cache.ListerWatcher, read func(ctx context.Context, name string) (map[string]string, error),
) *Namespaces {
	return &Namespaces{watched: newWatched(source), read: read, says: map[string]*string{}}
}

// NamespacesOnDemand returns Namespaces that watches nothing, for an agent whose decisions depend on no namespace: in a
// large cluster, every node would get the metadata of thousands. It reads a namespace if a plugin with other settings
// asks for it.
func NamespacesOnDemand(read func(ctx context.Context, name string) (map[string]string, error)) *Namespaces {
	return &Namespaces{read: read}
}

// Watched reports whether namespaces are watched.
func (c *Namespaces) Watched() bool { return c.watched != nil }

// Run lists and watches until ctx ends.
func (c *Namespaces) Run(ctx context.Context) {
	if c.Watched() {
		like := &metav1.PartialObjectMetadata{}
		cache.NewReflectorWithOptions(c.watched, like, namespaceStore{c}, cache.ReflectorOptions{}).RunWithContext(ctx)
	}
}

// Synced reports whether the first list has come. It is true if namespaces are not watched.
func (c *Namespaces) Synced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all || !c.Watched()
}

// Failing returns what Watched.Failing returns.
func (c *Namespaces) Failing() (since time.Time, err error) { return c.watched.Failing() }

// Annotations returns the annotations of the namespace on which a decision can depend. It reads them from the API
// server if the watch has not brought the namespace.
func (c *Namespaces) Annotations(ctx context.Context, name string) (map[string]string, error) {
	if c.Watched() {
		if known, exists := c.Known(name); exists {
			return known, nil
		}
	}
	all, err := c.read(ctx, name)
	return relevant(all), err
}

// Known returns what the watch has brought. If namespaces are not watched, it returns no annotations and true.
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

// namespaceStore is the cache.Store for client-go's reflector.
type namespaceStore struct{ *Namespaces }

// Transformer makes client-go drop what is not needed while a list is streamed.
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

// Add stores a namespace.
func (s namespaceStore) Add(object any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	note(s.says, object)
	return nil
}

// Update stores a namespace's new state.
func (s namespaceStore) Update(object any) error { return s.Add(object) }

// Delete removes a namespace.
func (s namespaceStore) Delete(object any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if namespace, ok := object.(*metav1.PartialObjectMetadata); ok {
		delete(s.says, namespace.Name)
	}
	return nil
}

// Replace stores a list instead of everything before.
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

// Resync does nothing.
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

// relevant returns the annotation on which a decision can depend.
func relevant(all map[string]string) map[string]string {
	value, present := all[annotation.Initialize]
	if !present {
		return nil
	}
	return map[string]string{annotation.Initialize: word(value)}
}
