package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

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
