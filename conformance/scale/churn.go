package main

import (
	"context"
	"time"
)

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
