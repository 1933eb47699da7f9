package main

import (
	"slices"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
)

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

// An agent watches from its last watch on. If what it watched was too old, it does not watch until it has listed.
func TestWatching(t *testing.T) {
	m := &measurement{kinds: map[string]int{}, watching: map[string]time.Time{}}
	ask := func(verb, node string, second int64, code int) {
		r := request{}
		r.Verb, r.Object.Resource, r.Status.Code, r.Received = verb, "pods", code, time.Unix(second, 0)
		r.URI = "/api/v1/pods?fieldSelector=spec.nodeName%3D" + node + "%2Cstatus.phase%21%3DFailed&watch=true"
		m.count(r)
	}
	expect := func(what string, want ...int64) {
		t.Helper()
		var got []int64
		for _, at := range m.watching {
			got = append(got, at.Unix())
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: they watch since %v, want %v", what, got, want)
		}
	}
	ask("watch", "a", 1, 200)
	ask("watch", "b", 2, 200)
	ask("watch", "c", 3, 403)
	expect("one is refused", 1, 2)
	ask("list", "b", 4, 200)
	expect("one was too old", 1)
	ask("watch", "b", 5, 200)
	ask("watch", "c", 6, 200)
	ask("watch", "a", 7, 200)
	expect("all", 5, 6, 7)
}

// The hash names the programs by their content.
func TestHashOf(t *testing.T) {
	own, err := hashOf("/proc/self/exe")
	await.Must(t, err)
	again, err := hashOf("/proc/self/exe")
	await.Must(t, err)
	both, err := hashOf("/proc/self/exe", "/proc/self/exe")
	await.Must(t, err)
	if own != again || own == both || len(own) != 12 {
		t.Errorf("%q, %q and of two %q", own, again, both)
	}
	if _, err := hashOf("/no"); err == nil {
		t.Error("a file that is not there has a hash")
	}
}
