package kube

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
)

// Taints has the taints of one node.
type Taints struct{ informer cache.SharedIndexInformer }

// NodeOf lists and watches one node, by a field selector.
func (c *Client) NodeOf(name string) cache.ListerWatcher {
	return cache.NewListWatchFromClient(c.core, "nodes", "", fields.OneTermEqualSelector(metav1.ObjectNameField, name))
}

// NewTaints makes a cache of the taints of the node that source lists and watches.
func NewTaints(source cache.ListerWatcher) (*Taints, error) {
	informer := cache.NewSharedIndexInformer(source, &corev1.Node{}, 0, cache.Indexers{})
	return &Taints{informer}, informer.SetTransform(func(object any) (any, error) {
		full, ok := object.(*corev1.Node)
		if !ok {
			return object, nil
		}
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: full.Name, ResourceVersion: full.ResourceVersion},
			Spec:       corev1.NodeSpec{Taints: full.Spec.Taints},
		}, nil
	})
}

// Run lists and watches until the context ends.
func (t *Taints) Run(ctx context.Context) { t.informer.RunWithContext(ctx) }

// Have reports whether the node has a taint of that key; known is false before the first list has come.
func (t *Taints) Have(key string) (have, known bool) {
	known = t.informer.HasSynced()
	for _, object := range t.informer.GetStore().List() {
		has := func(taint corev1.Taint) bool { return taint.Key == key }
		have = have || slices.ContainsFunc(object.(*corev1.Node).Spec.Taints, has)
	}
	return have, known
}
