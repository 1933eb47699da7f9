package main

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// patience limits a wait for something that has to happen. Its duration is printed.
const patience = 5 * time.Minute

// Goals. If pods are made while agents start, both times count from the start.
const (
	readyWithin  = 60 // seconds until all agents are ready after a restart of all
	markedWithin = 60 // seconds until all pods are marked, including those made meanwhile

	// Limits of requests other than marks; Events have their own. Most pods need none, so the figures should approach 0. A
	// pod that the watch brings late is read once, as every pod would be without a watch. On a machine full of agents
	// there are such pods.
	othersPerPod   = 0.05
	readsPerPod    = 0.5
	eventsPerPod   = 2  // one about the pod's template, and one about anything else
	requestsPerOne = 10 // of an agent that was cut off, until it watches again
)

// trifle is the time, in seconds, below which the growth of a figure does not matter.
const trifle = 2

// Kinds of requests. A mark is the only write for a sandbox.
const (
	markKind  = "patch pods/status"
	readKind  = "get pods"
	eventKind = "create events"
)

// measurement runs the steps at one size.
type measurement struct {
	*cluster
	found     []figure
	kinds     map[string]int       // the agents' requests so far
	marks     map[string]int       // number of marks by pod
	watching  map[string]time.Time // when the node's agent last began to watch its pods, by the request's field selector
	throttled int                  // requests that were answered with 429
	made      int                  // created objects except Events, which expire
}

func (m *measurement) add(f figure) { m.found = append(m.found, f) }

// measure runs the steps. It returns its figures with an error, too.
func measure(c *cluster) ([]figure, error) {
	m := &measurement{cluster: c, kinds: map[string]int{}, marks: map[string]int{}, watching: map[string]time.Time{}}
	for _, step := range []func() error{m.firstStart, m.compare, m.rolloutOfAll, m.idleness, m.restartOfAgents,
		m.restartOfAPIServer, m.compaction, m.namespacesChange} {
		if err := step(); err != nil {
			return m.found, err
		}
	}
	if err := m.account(); err != nil {
		return m.found, err
	}
	twice, unrecorded := 0, 0
	for pod, writes := range m.marks {
		twice += writes - 1
		if !m.isOfMesh(pod) {
			unrecorded += writes
		}
	}
	m.add(figure{What: "etcd: objects of the agents, but Events", Value: float64(m.made), Limit: limit(0)})
	m.add(figure{What: "marks written twice", Value: float64(twice), Limit: limit(0)})
	m.add(figure{What: "writes about pods without a record", Value: float64(unrecorded), Limit: limit(0)})
	ofNamespaces := 0
	for kind, count := range m.kinds {
		if strings.HasSuffix(kind, " namespaces") {
			ofNamespaces += count
		}
	}
	about := figure{What: "requests about namespaces", Value: float64(ofNamespaces), Noisy: true}
	if !m.watchesNamespaces() {
		about.Limit = limit(0)
	}
	m.add(about)
	return m.found, nil
}

// isOfMesh reports whether a pod has a record. pod is NAMESPACE/NAME, as in the audit log.
func (m *measurement) isOfMesh(pod string) bool {
	_, name, _ := strings.Cut(pod, "/cart-")
	number, _, _ := strings.Cut(name, "-")
	n, err := strconv.Atoi(number)
	return err == nil && m.slotIsMesh(n)
}

// account counts the requests since the last call.
func (m *measurement) account() error {
	requests, err := m.audit.requests()
	for _, r := range requests {
		m.count(r)
	}
	return err
}

// count counts a request.
func (m *measurement) count(r request) {
	kind := r.kind()
	m.kinds[kind]++
	switch {
	case r.Status.Code == http.StatusTooManyRequests:
		m.throttled++
	case kind == markKind:
		m.marks[r.Object.Namespace+"/"+r.Object.Name]++
	case kind == "watch pods":
		m.watching[r.fields()] = r.Received
	case kind == "list pods": // what it watched was too old
		delete(m.watching, r.fields())
	case r.Status.Code == http.StatusCreated && kind != eventKind:
		progress("an agent has made an object: %s in namespace %q", kind, r.Object.Namespace)
		m.made++
	}
}

// period is the cost of a step, and the agents' requests during it.
type period struct {
	spent
	took      time.Duration
	kinds     map[string]int
	throttled int // requests that were answered with 429
}

// requests counts the requests of these kinds, or all if there are none.
func (p period) requests(kinds ...string) (sum float64) {
	for kind, count := range p.kinds {
		if len(kinds) == 0 || slices.Contains(kinds, kind) {
			sum += float64(count)
		}
	}
	return sum
}

// during runs a step and returns its cost.
func (m *measurement) during(what func() error) (p period, err error) {
	if err := m.account(); err != nil {
		return p, err
	}
	p.kinds, p.throttled = map[string]int{}, -m.throttled
	for kind, count := range m.kinds {
		p.kinds[kind] = -count
	}
	before, err := m.spent()
	if err != nil {
		return p, err
	}
	if err := what(); err != nil {
		return p, err
	}
	after, err := m.spent()
	if err != nil {
		return p, err
	}
	err = m.account()
	for kind, count := range m.kinds {
		if p.kinds[kind] += count; p.kinds[kind] == 0 {
			delete(p.kinds, kind)
		}
	}
	p.throttled += m.throttled
	p.spent, p.took = after.minus(before), after.at.Sub(before.at)
	return p, err
}

// kindsOfInterest are the kinds of requests with rows of their own.
var kindsOfInterest = []string{markKind, readKind, "get nodes", "get namespaces", "list pods", "list namespaces",
	"watch pods", "watch namespaces", eventKind}

// perAgent are kinds of which an agent sends a fixed number when it starts.
var perAgent = []string{"get nodes", "list pods", "watch pods"}

// addKinds adds a row for each kind of the agents' requests, and one for all others. Reads and Events never fail by
// their growth: how often the watch is late depends on this machine, and their limit for each pod or agent is in a row
// of its own. steady says that nothing made the agents try again.
func (m *measurement) addKinds(what string, p period, steady bool) {
	for _, kind := range kindsOfInterest {
		m.add(figure{What: what + ": " + kind, Value: p.requests(kind), Noisy: kind != markKind,
			Printed: kind != markKind && (!steady || !slices.Contains(perAgent, kind))})
	}
	m.add(figure{What: what + ": other requests", Value: p.requests() - p.requests(kindsOfInterest...), Printed: true})
}

// addRefused adds the rows of requests that the API server rejected. An API server that has just started also answers
// 429 until its caches are full.
func (m *measurement) addRefused(what string, p period, started bool) {
	throttled := figure{What: what + ": answers 429", Value: float64(p.throttled), Printed: started}
	if !started {
		throttled.Limit = limit(0)
	}
	m.add(throttled)
	m.add(figure{What: what + ": rejected by priority and fairness", Value: max(p.rejected, 0), Limit: limit(0)})
}
