package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
)

// Events that agents write while etcd is asked are no objects of theirs.
func TestObjectsInEtcd(t *testing.T) {
	events := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		keys := []string{"/registry/pods/shop/cart-0"}
		for i := range events {
			keys = append(keys, fmt.Sprintf("/registry/events/default/node-%d", i))
		}
		for i, key := range keys {
			keys[i] = fmt.Sprintf(`{"key": %q}`, base64([]byte(key)))
		}
		events++
		list := strings.Join(keys, ", ")
		_, _ = fmt.Fprintf(w, `{"header": {"revision": "7"}, "kvs": [%s], "count": "%d"}`, list, len(keys))
	}))
	defer server.Close()
	for range 3 {
		keys, err := etcd(server.URL).objects()
		await.Must(t, err)
		if got := slices.Collect(maps.Keys(keys)); !slices.Equal(got, []string{"/registry/pods/shop/cart-0"}) {
			t.Errorf("objects are %q", got)
		}
	}
}
