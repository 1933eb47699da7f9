package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// herd is a step in which all agents do something at the same time.
type herd struct {
	what      string
	begin     func() error
	starts    bool // begin starts all agents
	rewatches bool // begin ends all watches
	makes     bool // a pod of every node is replaced meanwhile
}

// herd calls begin, and waits until all agents are ready and all pods are marked.
func (m *measurement) herd(h herd) error {
	what := h.what
	var began, ready, made, marked, watching time.Time
	p, err := m.during(func() (err error) {
		began = time.Now()
		clear(m.watching)
		if err := h.begin(); err != nil {
			return err
		}
		making := make(chan error, 1)
		go func() {
			var err error
			if h.makes {
				err = atOnce(len(m.fleet.nodes), func(i int) error {
					return m.pods[i*m.perNode].replace(context.Background(), m.cluster, false)
				})
			}
			made = time.Now()
			making <- err
		}()
		if h.starts {
			ready, err = m.fleet.ready()
		}
		if err := errors.Join(err, <-making); err != nil || !h.makes {
			return err
		}
		if marked, err = m.observer.all(m.pods); err == nil && h.rewatches {
			watching, err = m.watched()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	since := func(at time.Time) float64 { return max(at.Sub(began).Seconds(), 0) } // negative if there was no new pod
	if h.rewatches {
		m.add(figure{What: what + ": all watch again", Value: since(watching), Unit: "s", Noisy: true, Floor: trifle,
			Limit: limit(readyWithin)})
	}
	if h.starts {
		m.add(figure{What: what + ": all ready", Value: since(ready), Unit: "s", Noisy: true, Floor: trifle,
			Limit: limit(readyWithin)})
	}
	if h.makes { // this program makes them, as fast as the busy API server accepts them
		m.add(figure{What: what + ": all pods made", Value: since(made), Unit: "s", Printed: true})
		m.add(figure{What: what + ": all marked", Value: since(marked), Unit: "s", Printed: true,
			Limit: limit(markedWithin)})
		last := slices.MaxFunc([]time.Time{ready, made}, time.Time.Compare)
		m.add(figure{What: what + ": last mark after the last pod and the last agent", Unit: "s", Noisy: true,
			Value: max(marked.Sub(last).Seconds(), 0), Floor: trifle, Limit: limit(markedWithin)})
	}
	// Of a pod that is made before its agent lists, the agent gets one object, and of later ones each change. Its Events
	// may come after the step.
	m.add(figure{What: what + ": API server", Value: p.apiserver.Seconds(), Unit: "s", Noisy: true, Floor: trifle,
		Printed: h.makes})
	m.add(figure{What: what + ": bytes to agents", Value: p.from, Unit: "B", Noisy: true, Printed: h.makes})
	agents := float64(len(m.fleet.nodes))
	others := p.requests() - p.requests(markKind, eventKind)
	if h.rewatches { // an API server that has just started also answers 429, which has a row of its own
		others -= float64(p.throttled)
	}
	m.add(figure{What: what + ": requests of an agent, but marks and Events", Value: others / agents, Each: true,
		Noisy: true, Floor: 1, Limit: limit(requestsPerOne)})
	m.addRefused(what, p, h.rewatches)
	m.addKinds(what, p, !h.rewatches)
	progress("%s: %v, %v", what, p.took.Round(time.Millisecond), p.kinds)
	return nil
}

// watched waits until every agent watches its pods again, and returns when the last one began to.
func (m *measurement) watched() (last time.Time, err error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if err := m.account(); err != nil {
			return last, err
		}
		if len(m.watching) == len(m.fleet.nodes) {
			return slices.MaxFunc(slices.Collect(maps.Values(m.watching)), time.Time.Compare), nil
		}
		if time.Now().After(deadline) {
			return last, fmt.Errorf("within %v %d of %d agents watch again", patience, len(m.watching), len(m.fleet.nodes))
		}
	}
}

// rolloutOfAll replaces every pod.
func (m *measurement) rolloutOfAll() error {
	if err := m.quiet(); err != nil { // Events of earlier steps
		return err
	}
	progress("a rollout of all %d pods", len(m.pods))
	p, err := m.during(func() error {
		err := atOnce(len(m.pods), func(i int) error { return m.pods[i].replace(context.Background(), m.cluster, true) })
		if err != nil {
			return err
		}
		_, err = m.observer.all(m.pods)
		return err
	})
	if err != nil {
		return err
	}
	rest, err := m.during(m.quiet) // Events come later than the marks
	if err != nil {
		return err
	}
	told, err := m.etcd.has("/registry/events", `"serializable": true`)
	if err != nil {
		return err
	}
	bytes := 0
	for _, kv := range told.KVs {
		bytes += len(kv.Value)
	}
	took := m.observer.took(m.pods)
	pods, sandboxes := float64(len(m.pods)), float64(len(m.fleet.nodes)*m.meshed)
	const what = "rollout of all: "
	m.add(figure{What: what + "pods per second", Value: pods / p.took.Seconds(), Printed: true})
	m.add(figure{What: what + "all marked", Value: p.took.Seconds(), Unit: "s", Printed: true})
	m.add(figure{What: what + "requests per second", Value: p.requests() / p.took.Seconds(), Printed: true})
	for _, kind := range slices.Sorted(maps.Keys(p.kinds)) {
		m.add(figure{What: what + kind + ", per second", Value: p.requests(kind) / p.took.Seconds(), Printed: true})
		m.add(figure{What: what + kind + ", per pod", Value: p.requests(kind) / pods, Printed: true})
	}
	m.add(figure{What: what + "from a record to its mark, median", Value: took[len(took)/2].Seconds() * 1000,
		Unit: "ms", Each: true, Noisy: true, Floor: 1000 * trifle})
	m.add(figure{What: what + "from a record to its mark, worst", Value: took[len(took)-1].Seconds() * 1000, Unit: "ms",
		Each: true, Noisy: true, Floor: 1000 * trifle, Limit: limit(1000 * markedWithin)})
	m.add(figure{What: what + "writes per sandbox with a record", Value: p.requests(markKind) / sandboxes,
		Limit: limit(1)})
	m.add(figure{What: what + "reads per sandbox with a record, where the watch was late",
		Value: p.requests(readKind) / sandboxes, Each: true, Noisy: true, Floor: readsPerPod / 2, Limit: limit(readsPerPod)})
	m.add(figure{What: what + "Events per sandbox with a record", Each: true, Noisy: true,
		Value: (p.requests(eventKind) + rest.requests(eventKind)) / sandboxes, Limit: limit(eventsPerPod)})
	m.add(figure{What: "etcd: Events so far", Value: float64(len(told.KVs)), Noisy: true})
	m.add(figure{What: "etcd: bytes of the Events so far", Value: float64(bytes), Unit: "B", Noisy: true})
	m.add(figure{What: what + "other requests per pod",
		Value: (p.requests() - p.requests(markKind, readKind, eventKind)) / pods,
		Each:  true, Noisy: true, Floor: othersPerPod, Limit: limit(othersPerPod)})
	m.add(figure{What: what + "bytes to agents, per pod", Value: p.from / pods, Unit: "B", Each: true, Noisy: true})
	m.add(figure{What: what + "bytes from agents, per pod", Value: p.to / pods, Unit: "B", Each: true, Noisy: true})
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

// idleness measures what agents cost while nothing happens, and the same time without agents. The step before it has
// ended in quiet.
func (m *measurement) idleness() error {
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
	return m.herd(herd{what: "restart of all agents", starts: true, makes: true,
		begin: func() error { m.fleet.stop(); return m.fleet.start() }})
}

// restartOfAPIServer kills the API server and starts it again.
func (m *measurement) restartOfAPIServer() error {
	progress("the API server restarts")
	return m.herd(herd{what: "restart of the API server", rewatches: true, makes: true, begin: func() error {
		m.server.Down()
		m.restarts++
		return m.server.Up()
	}})
}

// compaction drops etcd's old revisions while the agents watch. The API server's cache serves them, so they should not
// notice.
func (m *measurement) compaction() error {
	progress("etcd is compacted")
	return m.herd(herd{what: "compaction of etcd", begin: m.etcd.compact, makes: true})
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
