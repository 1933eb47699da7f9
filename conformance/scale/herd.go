package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// herd measures what all agents do at the same time. It calls begin, and waits until all are ready and all pods are
// marked. If makes is true, it replaces one pod on every node meanwhile. If rewatches is true, begin ends all watches.
func (m *measurement) herd(what string, begin func() error, makes, rewatches bool) error {
	var began, ready, made, marked, watching time.Time
	watches := 0
	p, err := m.during(func() (err error) {
		began, watches = time.Now(), m.kinds["watch pods"]
		if err := begin(); err != nil {
			return err
		}
		if rewatches { // no agent could watch before
			began = time.Now()
		}
		making := make(chan error, 1)
		go func() {
			var err error
			if makes {
				err = atOnce(len(m.fleet.nodes), func(i int) error {
					return m.pods[i*m.perNode].replace(context.Background(), m.cluster, false)
				})
			}
			made = time.Now()
			making <- err
		}()
		ready, err = m.fleet.ready()
		if err := errors.Join(err, <-making); err != nil || !makes {
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
	since := func(at time.Time) float64 { return max(at.Sub(began).Seconds(), 0) } // negative if there was no new pod
	if rewatches {
		m.add(figure{What: what + ": all watch again", Value: since(watching), Unit: "s", Noisy: true, Floor: trifle,
			Limit: limit(readyWithin)})
	}
	m.add(figure{What: what + ": all ready", Value: since(ready), Unit: "s", Noisy: true, Floor: trifle,
		Limit: limit(readyWithin)})
	if makes { // this program makes them, as fast as the busy API server accepts them
		m.add(figure{What: what + ": all pods made", Value: since(made), Unit: "s", Printed: true})
		m.add(figure{What: what + ": all marked", Value: since(marked), Unit: "s", Printed: true,
			Limit: limit(markedWithin)})
		last := slices.MaxFunc([]time.Time{ready, made}, time.Time.Compare)
		m.add(figure{What: what + ": last mark after the last agent and the last pod", Unit: "s", Noisy: true,
			Value: max(marked.Sub(last).Seconds(), 0), Floor: trifle, Limit: limit(markedWithin)})
	}
	m.add(figure{What: what + ": API server", Value: p.apiserver.Seconds(), Unit: "s", Noisy: true, Floor: trifle})
	// Of a pod that is made before its agent lists, the agent gets one object, and of later ones each change.
	m.add(figure{What: what + ": bytes to agents", Value: p.from, Unit: "B", Noisy: true, Printed: makes})
	agents := float64(len(m.fleet.nodes))
	others := p.requests() - p.requests(markKind, eventKind)
	if rewatches { // an API server that has just started also answers 429, which has a row of its own
		others -= float64(p.throttled)
	}
	m.add(figure{What: what + ": requests of an agent, but marks and Events", Value: others / agents, Printed: true,
		Limit: limit(requestsPerOne)})
	m.addRefused(what, p, rewatches)
	m.addKinds(what, p, !rewatches)
	progress("%s: %v, %v", what, p.took.Round(time.Millisecond), p.kinds)
	return nil
}

// watched waits until every agent watches its pods again, and returns when.
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
	p, err := m.during(func() (err error) {
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
	pods, sandboxes := float64(len(m.pods)), float64(len(m.fleet.nodes)*m.meshed)
	const what = "rollout of all: "
	m.add(figure{What: what + "pods per second", Value: pods / p.took.Seconds(), Printed: true})
	m.add(figure{What: what + "requests per second", Value: p.requests() / p.took.Seconds(), Printed: true})
	m.add(figure{What: what + "last mark after the last pod", Value: max(marked.Sub(rolled).Seconds(), 0), Unit: "s",
		Noisy: true, Floor: trifle, Limit: limit(markedWithin)})
	m.add(figure{What: what + "writes per sandbox with a record", Value: p.requests(markKind) / sandboxes,
		Limit: limit(1)})
	m.add(figure{What: what + "reads per pod, where the watch was late", Value: p.requests(readKind) / pods,
		Printed: true, Limit: limit(readsPerPod)})
	m.add(figure{What: what + "Events per sandbox with a record", Value: p.requests(eventKind) / sandboxes,
		Printed: true, Limit: limit(eventsPerPod)})
	m.add(figure{What: what + "other requests per pod",
		Value:   (p.requests() - p.requests(markKind, readKind, eventKind)) / pods,
		Printed: true, Limit: limit(othersPerPod)})
	m.add(figure{What: what + "bytes to agents, per pod", Value: p.from / pods, Unit: "B", Noisy: true})
	m.add(figure{What: what + "bytes from agents, per pod", Value: p.to / pods, Unit: "B", Noisy: true})
	m.addRefused("rollout of all", p, false)
	m.addKinds("rollout of all", p, false)
	progress("rollout of all: %v, %v", p.took.Round(time.Millisecond), p.kinds)
	return nil
}

// quiet waits until the agents have nothing left to report of earlier steps: they send Events slowly.
func (m *measurement) quiet() error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		p, err := m.during(func() error { time.Sleep(5 * time.Second); return nil })
		if err != nil || p.requests(eventKind, markKind, readKind) == 0 {
			return err
		}
	}
	return nil // the figures will show it
}

// idleness measures what agents cost while nothing happens, and the same time without agents.
func (m *measurement) idleness() error {
	if err := m.quiet(); err != nil {
		return err
	}
	progress("idle for %v with agents, and without", m.idle)
	idle := func() error { time.Sleep(m.idle); return nil }
	with, err := m.during(idle)
	if err != nil {
		return err
	}
	open, err := m.spent()
	if err != nil {
		return err
	}
	memory, err := m.fleet.memory()
	if err != nil {
		return err
	}
	m.fleet.stop()
	without, err := m.during(idle)
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
	seconds, agents := m.idle.Seconds(), float64(len(m.fleet.nodes))
	m.add(figure{What: "watches open", Value: open.watches - left.watches})
	m.add(figure{What: "idle: requests per second", Value: with.requests() / seconds, Noisy: true, Floor: agents / 100})
	m.add(figure{What: "idle: bytes to agents, per second", Value: with.from / seconds, Unit: "B", Noisy: true,
		Floor: 100 * agents})
	m.add(figure{What: "idle: API server", Value: max((with.apiserver-without.apiserver).Seconds(), 0) / seconds,
		Unit: "processors", Noisy: true, Floor: 0.02})
	m.add(figure{What: fmt.Sprintf("memory per agent, %d in a process", m.each), Value: memory / agents, Unit: "B",
		Printed: true})
	return nil
}

// restartOfAgents ends all agents and starts them again, while pods are made.
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

// compaction drops etcd's old revisions while the agents watch.
func (m *measurement) compaction() error {
	progress("etcd is compacted")
	return m.herd("compaction of etcd", m.etcd.compact, true, false)
}

// namespacesChange changes an annotation of every namespace.
func (m *measurement) namespacesChange() error {
	progress("every namespace changes")
	change := func(value string) func() error {
		return func() error {
			if err := m.annotate(value); err != nil {
				return err
			}
			time.Sleep(time.Second) // for the effects of the changes
			return nil
		}
	}
	p, err := m.during(change("with"))
	if err != nil {
		return err
	}
	watched := m.watchesNamespaces() // otherwise the agents' traffic is random
	m.add(figure{What: "every namespace changes: bytes to agents", Value: p.from, Unit: "B", Noisy: true,
		Printed: !watched})
	m.add(figure{What: "every namespace changes: requests", Value: p.requests(), Noisy: true, Printed: !watched})
	return nil
}
