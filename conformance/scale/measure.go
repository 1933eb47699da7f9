package main

import (
	"context"
	"errors"
	"fmt"
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
	found []figure
	kinds map[string]int // the agents' requests so far
	marks map[string]int // by pod: how many times it was written
	noted int            // requests that were refused with 429
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
	m.addLimited("answers 429", float64(m.noted), "", 0)
	return m.found, nil
}

// account counts the requests since the last call.
func (m *measurement) account() error {
	requests, err := m.audit.requests()
	for _, r := range requests {
		m.kinds[r.kind()]++
		switch {
		case r.Status.Code == http.StatusTooManyRequests:
			m.noted++
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

// churned replaces some pods, the same number on every node, and waits for their marks if somebody writes them.
func (m *measurement) churned(count int, answered bool) error {
	count = min(count, len(m.pods))
	step := len(m.pods) / count
	some := make([]*slot, count)
	for i := range some {
		some[i] = m.pods[i*step]
	}
	if err := atOnce(count, func(i int) error {
		return some[i].replace(context.Background(), m.cluster, answered)
	}); err != nil {
		return err
	}
	if !answered {
		return nil
	}
	_, err := m.observer.all(some)
	return err
}

// compare replaces pods without and with agents, twice each, starts the agents between, and says what they cost.
func (m *measurement) compare() error {
	progress("pods replaced without agents, and with them")
	without, err := m.cost(false)
	if err != nil {
		return err
	}
	objects, size, err := m.inEtcd()
	if err != nil {
		return err
	}
	if err := m.start(); err != nil {
		return err
	}
	more, larger, err := m.inEtcd()
	if err != nil {
		return err
	}
	m.add("etcd: objects of the agents, but Events", max(more-objects, 0), "")
	m.add("etcd: bytes of the marks", (larger-size)*float64(m.meshed*len(m.fleet.nodes)), "B")
	with, err := m.cost(true)
	if err != nil {
		return err
	}
	m.fleet.stop()
	again, err := m.cost(false)
	if err != nil {
		return err
	}
	if err := m.startAgain(); err != nil {
		return err
	}
	withAgain, err := m.cost(true)
	if err != nil {
		return err
	}
	pods := float64(min(m.churn, len(m.pods)))
	ours := func(of func(spent) time.Duration) float64 {
		return (of(with) + of(withAgain) - of(without) - of(again)).Seconds() * 1000 / (2 * pods)
	}
	all := func(of func(spent) time.Duration) float64 {
		return (of(without) + of(again)).Seconds() * 1000 / (2 * pods)
	}
	apiserver, etcd := func(s spent) time.Duration { return s.apiserver }, func(s spent) time.Duration { return s.etcd }
	m.addNoisy("API server: per pod replaced, without us", all(apiserver), "ms")
	m.addNoisy("API server: per pod replaced, ours", max(ours(apiserver), 0), "ms")
	m.addNoisy("etcd: per pod replaced, without us", all(etcd), "ms")
	m.addNoisy("etcd: per pod replaced, ours", max(ours(etcd), 0), "ms")
	return nil
}

// cost is that of replacing some pods.
func (m *measurement) cost(agents bool) (spent, error) {
	cost, _, _, err := m.during(func() error { return m.churned(m.churn, agents) })
	return cost, err
}

// start starts all agents of a cluster whose pods have no marks yet.
func (m *measurement) start() error {
	progress("all agents start")
	return m.herd("first start", func() error { return m.fleet.start() }, false, false)
}

// startAgain starts the agents that were stopped, and waits until they have settled.
func (m *measurement) startAgain() error {
	if err := m.fleet.start(); err != nil {
		return err
	}
	_, err := m.settled()
	return err
}

// settled waits until all agents are ready and all pods are marked, and returns when.
func (m *measurement) settled() (ready time.Time, err error) {
	if ready, err = m.fleet.ready(); err != nil {
		return ready, err
	}
	_, err = m.observer.all(m.pods)
	return ready, err
}

// herd measures what all agents do at once, beginning with something, until they are ready and all pods are marked,
// also those that are made meanwhile, one on every node.
func (m *measurement) herd(what string, begin func() error, makes, rewatches bool) error {
	var began, ready, marked, watching time.Time
	watches := 0
	cost, took, kinds, err := m.during(func() (err error) {
		began, watches = time.Now(), m.kinds["watch pods"]
		if err := begin(); err != nil {
			return err
		}
		if rewatches { // nobody could before
			began = time.Now()
		}
		made := make(chan error, 1)
		go func() {
			if !makes {
				made <- nil
				return
			}
			made <- atOnce(len(m.fleet.nodes), func(i int) error {
				return m.pods[i*m.perNode].replace(context.Background(), m.cluster, false)
			})
		}()
		ready, err = m.fleet.ready()
		if err := errors.Join(err, <-made); err != nil {
			return err
		}
		if marked, err = m.observer.all(m.pods); err == nil && rewatches {
			watching, err = m.watched(watches)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if rewatches {
		m.addLimited(what+": all watch again", watching.Sub(began).Seconds(), "s", readyWithin)
	}
	m.addLimited(what+": all ready", ready.Sub(began).Seconds(), "s", readyWithin)
	if marked.After(began) {
		m.addLimited(what+": all marked", marked.Sub(began).Seconds(), "s", patience.Seconds())
	} else {
		m.addNoisy(what+": all marked", 0, "s")
	}
	m.addNoisy(what+": API server", cost.apiserver.Seconds(), "s")
	m.addNoisy(what+": bytes to agents", cost.from, "B")
	m.addLimited(what+": rejected by priority and fairness", max(cost.rejected, 0), "", 0)
	m.addKinds(what, kinds)
	progress("%s: %v, %v", what, took.Round(time.Millisecond), kinds)
	return nil
}

// watched waits until every agent watches its pods anew, and returns when.
func (m *measurement) watched(before int) (time.Time, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if err := m.account(); err != nil {
			return time.Time{}, err
		}
		again := m.kinds["watch pods"] - before
		if again >= len(m.fleet.nodes) {
			return time.Now(), nil
		}
		if time.Now().After(deadline) {
			return time.Time{}, fmt.Errorf("within %v %d of %d agents watch again", patience, again, len(m.fleet.nodes))
		}
	}
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

// rolloutOfAll replaces every pod.
func (m *measurement) rolloutOfAll() error {
	progress("a rollout of all %d pods", len(m.pods))
	var rolled, marked time.Time
	cost, took, kinds, err := m.during(func() (err error) {
		err = atOnce(len(m.pods), func(i int) error { return m.pods[i].replace(context.Background(), m.cluster, true) })
		if err != nil {
			return err
		}
		rolled = time.Now()
		marked, err = m.observer.all(m.pods)
		return err
	})
	if err != nil {
		return err
	}
	sandboxes, others := 0, 0
	for _, s := range m.pods {
		if s.mesh {
			sandboxes++
		}
	}
	for kind, count := range kinds {
		if kind != markKind && kind != "create events" {
			others += count
		}
	}
	m.addNoisy("rollout of all: pods per second", float64(len(m.pods))/took.Seconds(), "")
	m.addNoisy("rollout of all: last mark after the last pod", max(marked.Sub(rolled).Seconds(), 0), "s")
	m.addLimited("rollout of all: writes per sandbox with a record", float64(kinds[markKind])/float64(sandboxes), "", 1)
	m.addNoisy("rollout of all: other requests per pod", float64(others)/float64(len(m.pods)), "")
	m.addNoisy("rollout of all: bytes to agents, per pod", cost.from/float64(len(m.pods)), "B")
	m.addNoisy("rollout of all: bytes from agents, per pod", cost.to/float64(len(m.pods)), "B")
	m.addKinds("rollout of all", kinds)
	progress("rollout of all: %v, %v", took.Round(time.Millisecond), kinds)
	return nil
}

// idleness measures what agents cost while nothing happens, beside the same time without them.
func (m *measurement) idleness() error {
	progress("idle for %v with agents, and without", m.idle)
	idle := func() error { time.Sleep(m.idle); return nil }
	with, _, kinds, err := m.during(idle)
	if err != nil {
		return err
	}
	open, err := m.spent()
	if err != nil {
		return err
	}
	requests := 0
	for _, count := range kinds {
		requests += count
	}
	m.fleet.stop()
	without, _, _, err := m.during(idle)
	if err != nil {
		return err
	}
	left, err := m.spent()
	if err != nil {
		return err
	}
	if err := m.startAgain(); err != nil {
		return err
	}
	m.add("watches open", open.watches-left.watches, "")
	m.addNoisy("idle: requests per second", float64(requests)/m.idle.Seconds(), "")
	m.addNoisy("idle: bytes to agents, per second", with.from/m.idle.Seconds(), "B")
	m.addNoisy("idle: API server", max((with.apiserver-without.apiserver).Seconds(), 0)/m.idle.Seconds(), "processors")
	return nil
}

// restartOfAgents ends all at once and starts them again, while pods are made.
func (m *measurement) restartOfAgents() error {
	progress("all agents restart")
	return m.herd("restart of all agents", func() error { m.fleet.stop(); return m.fleet.start() }, true, false)
}

// restartOfAPIServer kills the API server and starts it again.
func (m *measurement) restartOfAPIServer() error {
	progress("the API server restarts")
	return m.herd("restart of the API server", func() error {
		m.server.Down()
		m.restarts++
		return m.server.Up()
	}, true, true)
}

// compaction drops etcd's old revisions under the agents' watches.
func (m *measurement) compaction() error {
	progress("etcd is compacted")
	return m.herd("compaction of etcd", m.compact, true, false)
}

// namespacesChange changes an annotation of every namespace.
func (m *measurement) namespacesChange() error {
	progress("every namespace changes")
	change := func(value string) func() error {
		return func() error {
			if err := m.annotate(value); err != nil {
				return err
			}
			time.Sleep(time.Second) // for what comes after
			return nil
		}
	}
	with, _, kinds, err := m.during(change("with"))
	if err != nil {
		return err
	}
	requests := 0
	for _, count := range kinds {
		requests += count
	}
	m.addNoisy("every namespace changes: bytes to agents", with.from, "B")
	m.addNoisy("every namespace changes: requests", float64(requests), "")
	return nil
}
