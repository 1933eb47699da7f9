package kube

import (
	"context"
	"maps"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// Where no decision depends on a namespace, none is watched; one that a plugin of other settings asks for is read.
func TestNamespacesOnDemand(t *testing.T) {
	says := map[string]string{annotation.Initialize: "true"}
	reads := 0
	c := NamespacesOnDemand(func(context.Context, string) (map[string]string, error) { reads++; return says, nil })
	c.Run(t.Context()) // ends at once: there is nothing to watch
	if annotations, known := c.Known("shop"); !c.Synced() || c.Watched() || !known || annotations != nil || reads > 0 {
		t.Errorf("synced %t, watched %t, known %t: %v, after %d reads", c.Synced(), c.Watched(), known, annotations, reads)
	}
	if got, err := c.Annotations(t.Context(), "shop"); err != nil || !maps.Equal(got, says) || reads != 1 {
		t.Errorf("%v, %v after %d reads", got, err, reads)
	}
}
