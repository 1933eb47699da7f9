package main

import (
	"context"
	"math/rand/v2"
	"time"
)

// churnedPods returns how many pods are replaced to compare: at most half of all, so that some marks stay.
func (m *measurement) churnedPods() int { return min(m.churn, len(m.pods)/2) }

// churned replaces some pods on all nodes. If answered, it waits for their marks.
func (m *measurement) churned(answered bool) error {
	count := m.churnedPods()
	some := make([]*slot, count)
	for i, number := range rand.New(rand.NewPCG(0, 0)).Perm(len(m.pods))[:count] { // always the same, of all kinds
		some[i] = m.pods[number]
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

// firstStart starts all agents of a cluster without pods, and then creates the pods.
func (m *measurement) firstStart() error {
	progress("all agents start")
	if err := m.herd(herd{what: "first start", begin: m.fleet.start, starts: true}); err != nil {
		return err
	}
	progress("making %d pods", len(m.pods))
	if err := atOnce(len(m.pods), func(i int) error {
		return m.pods[i].make(context.Background(), m.cluster, false)
	}); err != nil {
		return err
	}
	_, err := m.observer.all(m.pods)
	return err
}

// compare replaces pods with and without agents, twice each, and adds what the agents cost. It does not wait for
// Events, which come later than the marks: waiting as long without agents would double the time that a run takes.
func (m *measurement) compare() error {
	progress("pods replaced with agents, and without them")
	with, without, err := m.withAndWithout()
	if err != nil {
		return err
	}
	mark, err := m.bytesOfMark()
	if err != nil {
		return err
	}
	if err := m.startAgain(); err != nil {
		return err
	}
	m.add(figure{What: "etcd: bytes of the marks", Value: mark * float64(m.meshed*len(m.fleet.nodes)), Unit: "B"})
	withAgain, again, err := m.withAndWithout()
	if err != nil {
		return err
	}
	pods := float64(m.churnedPods())
	perPod := func(of func(spent) time.Duration) (all, ours float64) {
		all = (of(without.spent) + of(again.spent)).Seconds() * 1000 / (2 * pods)
		return all, max((of(with.spent)+of(withAgain.spent)).Seconds()*1000/(2*pods)-all, 0)
	}
	apiserver, ofAPIServer := perPod(func(s spent) time.Duration { return s.apiserver })
	etcd, ofEtcd := perPod(func(s spent) time.Duration { return s.etcd })
	for _, f := range []figure{
		{What: "API server: per pod replaced, without us", Value: apiserver},
		{What: "API server: per pod replaced, ours", Value: ofAPIServer},
		{What: "etcd: per pod replaced, without us", Value: etcd},
		{What: "etcd: per pod replaced, ours", Value: ofEtcd},
	} {
		f.Unit, f.Noisy, f.Each, f.Floor = "ms", true, true, 1 // a smaller value is the difference of two noises
		m.add(f)
	}
	return m.startAgain()
}

// withAndWithout replaces some pods while agents run, stops the agents, and replaces the pods again.
func (m *measurement) withAndWithout() (with, without period, err error) {
	if with, err = m.during(func() error { return m.churned(true) }); err != nil {
		return with, without, err
	}
	m.fleet.stop()
	without, err = m.during(func() error { return m.churned(false) })
	return with, without, err
}

// startAgain starts the stopped agents, and waits until they have settled.
func (m *measurement) startAgain() error {
	if err := m.fleet.start(); err != nil {
		return err
	}
	_, err := m.settled()
	return err
}

// settled waits until all agents are ready and all pods are marked. It returns when the agents were ready.
func (m *measurement) settled() (ready time.Time, err error) {
	if ready, err = m.fleet.ready(); err != nil {
		return ready, err
	}
	_, err = m.observer.all(m.pods)
	return ready, err
}
