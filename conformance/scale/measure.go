package main

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// patience bounds what has to happen; how long it took is printed.
const patience = 5 * time.Minute

// readyWithin is the goal for all agents together after they were all restarted, in seconds.
const readyWithin = 60

// markKind is the only write that a sandbox costs.
const markKind = "patch pods/status"

// measurement goes through the steps at one size.
type measurement struct {
	*cluster
	found     []figure
	kinds     map[string]int // the agents' requests so far
	marks     map[string]int // by pod: how many times it was written
	throttled int            // requests that were refused with 429
}

func (m *measurement) add(what string, value float64, unit string) {
	m.found = append(m.found, figure{what, value, unit, false, unlimited})
}

func (m *measurement) addNoisy(what string, value float64, unit string) {
	m.found = append(m.found, figure{what, value, unit, true, unlimited})
}

func (m *measurement) addLimited(what string, value float64, unit string, limit float64) {
	m.found = append(m.found, figure{what, value, unit, true, limit})
}

// measure goes through the steps.
func measure(c *cluster) ([]figure, error) {
	m := &measurement{cluster: c, kinds: map[string]int{}, marks: map[string]int{}}
	for _, step := range []func() error{m.compare, m.rolloutOfAll, m.idleness, m.restartOfAgents, m.restartOfAPIServer,
		m.compaction, m.namespacesChange} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if err := m.account(); err != nil {
		return nil, err
	}
	twice := 0
	for _, writes := range m.marks {
		twice += writes - 1
	}
	m.addLimited("marks written twice", float64(twice), "", 0)
	ofNamespaces := 0
	for kind, count := range m.kinds {
		if strings.HasSuffix(kind, " namespaces") {
			ofNamespaces += count
		}
	}
	if m.watchesNamespaces() {
		m.addNoisy("requests about namespaces", float64(ofNamespaces), "")
	} else {
		m.addLimited("requests about namespaces", float64(ofNamespaces), "", 0)
	}
	m.addLimited("answers 429", float64(m.throttled), "", 0)
	return m.found, nil
}

// account counts the requests since the last call.
func (m *measurement) account() error {
	requests, err := m.audit.requests()
	for _, r := range requests {
		m.kinds[r.kind()]++
		switch {
		case r.Status.Code == http.StatusTooManyRequests:
			m.throttled++
		case r.kind() == markKind:
			m.marks[r.Object.Namespace+"/"+r.Object.Name]++
		}
	}
	return err
}

// during does something and returns what that has cost, and what the agents have asked for meanwhile.
func (m *measurement) during(what func() error) (cost spent, took time.Duration, kinds map[string]int, err error) {
	if err := m.account(); err != nil {
		return cost, 0, nil, err
	}
	kinds = map[string]int{}
	for kind, count := range m.kinds {
		kinds[kind] = -count
	}
	before, err := m.spent()
	if err != nil {
		return cost, 0, nil, err
	}
	if err := what(); err != nil {
		return cost, 0, nil, err
	}
	after, err := m.spent()
	if err != nil {
		return cost, 0, nil, err
	}
	err = m.account()
	for kind, count := range m.kinds {
		if kinds[kind] += count; kinds[kind] == 0 {
			delete(kinds, kind)
		}
	}
	return after.minus(before), after.at.Sub(before.at), kinds, err
}

// kindsOfInterest are those that have rows of their own.
var kindsOfInterest = []string{markKind, "get pods", "get nodes", "get namespaces", "list pods", "list namespaces",
	"watch pods", "watch namespaces", "create events"}

// addKinds has a row for each kind of request that the agents make, and one for all others.
func (m *measurement) addKinds(what string, kinds map[string]int) {
	others := 0
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if !slices.Contains(kindsOfInterest, kind) {
			others += kinds[kind]
		}
	}
	for _, kind := range kindsOfInterest {
		m.found = append(m.found, figure{what + ": " + kind, float64(kinds[kind]), "", kind != markKind, unlimited})
	}
	m.addNoisy(what+": other requests", float64(others), "")
}
