package kube

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
)

// Taints is a cache of the taints of one node.
type Taints struct{ Cache }

// NodeOf returns a source that lists and watches one node.
func (c *Client) NodeOf(name string) cache.ListerWatcher {
	return cache.NewListWatchFromClient(c.core, "nodes", "", fields.OneTermEqualSelector(metav1.ObjectNameField, name))
}

// NewTaints returns a cache of the taints of the node that source lists and watches.
func NewTaints(source cache.ListerWatcher) (*Taints, error) {
	c, err := newCache(source, &corev1.Node{}, cache.Indexers{}, func(full *corev1.Node) *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: full.Name, ResourceVersion: full.ResourceVersion},
			Spec:       corev1.NodeSpec{Taints: full.Spec.Taints},
		}
	})
	return &Taints{c}, err
}

// Have reports whether the node has a taint with that key. known is false until the first list has come.
func (t *Taints) Have(key string) (have, known bool) {
	known = t.Synced()
	for _, object := range t.informer.GetStore().List() {
		has := func(taint corev1.Taint) bool { return taint.Key == key }
		have = have || slices.ContainsFunc(object.(*corev1.Node).Spec.Taints, has)
	}
	return have, known
}
