package main

import "testing"

// Every object that an agent creates counts, except Events, which expire. A mark changes an object.
func TestCount(t *testing.T) {
	m := &measurement{kinds: map[string]int{}, marks: map[string]int{}}
	for _, c := range []struct {
		verb, resource, subresource string
		code                        int
	}{
		{"create", "events", "", 201},
		{"patch", "pods", "status", 200},
		{"create", "leases", "", 403},
		{"create", "leases", "", 201},
		{"patch", "configmaps", "", 201}, // server-side apply
		{"watch", "pods", "", 429},
	} {
		r := request{}
		r.Verb, r.Object.Resource, r.Object.Subresource, r.Status.Code = c.verb, c.resource, c.subresource, c.code
		m.count(r)
	}
	if m.made != 2 || m.throttled != 1 || len(m.marks) != 1 || m.kinds[eventKind] != 1 || m.kinds["watch pods"] != 0 {
		t.Errorf("%d objects, %d refused, %d marked, %v", m.made, m.throttled, len(m.marks), m.kinds)
	}
}
