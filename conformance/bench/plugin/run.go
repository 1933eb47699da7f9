package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"
)

// warmup runs are thrown away: they bring the binaries into the page cache and load kernel modules.
const warmup = 2

// row is what was measured of one spec.
type row struct {
	spec
	samples []sample
	busy    []float64 // of bursts: which part of the processors' time until the last call's end the calls took
	traced  traced
	err     error // the first failure; the rest of the row is then not run
}

// runAll measures everything: one at a time, then bursts, then the traced runs.
func runAll(n *node, opts options) ([]*row, error) {
	single, err := runSingle(n, groups(opts.backends), opts.n)
	if err != nil {
		return nil, err
	}
	var burst []*row
	for _, at := range opts.bursts {
		rows, err := runBursts(n, bursts(opts.backends, at), at, opts.rounds)
		if err != nil {
			return nil, err
		}
		burst = append(burst, rows...)
	}
	for _, rows := range single {
		if err := traceGroup(n, rows); err != nil {
			return nil, err
		}
	}
	var all []*row
	for _, rows := range single {
		all = append(all, rows...)
	}
	return append(all, burst...), nil
}

// runSingle runs all groups once per round, each round in another order: what runs before a call changes its cost, so
// none may always follow the same. The orders are the same in every run of the benchmark.
func runSingle(n *node, groups []group, rounds int) ([][]*row, error) {
	rows := make([][]*row, len(groups))
	for i, g := range groups {
		for _, s := range g {
			rows[i] = append(rows[i], &row{spec: s})
		}
	}
	rounds += warmup
	// All namespaces are made beforehand and kept: making and above all destroying one keeps the kernel busy for long.
	pods, err := n.newPods(rounds * len(groups))
	if err != nil {
		return nil, err
	}
	order := rand.New(rand.NewPCG(1, 2))
	for round := range rounds {
		for _, g := range order.Perm(len(groups)) {
			if err := runGroup(n, rows[g], pods[round*len(groups)+g], round < warmup); err != nil {
				return nil, err
			}
		}
	}
	return rows, nil
}

// runGroup runs one round of a group on its pod.
func runGroup(n *node, rows []*row, p pod, discard bool) error {
	for _, r := range rows {
		c, err := n.call(r.spec, p)
		if err != nil {
			return err
		}
		if r.err != nil {
			continue
		}
		if r.err = c.warm(); r.err != nil {
			continue
		}
		s, err := c.run()
		if err == nil {
			err = n.verified(r.spec, p)
		}
		switch {
		case err != nil:
			r.err = err
		case !discard:
			r.samples = append(r.samples, s)
		}
	}
	return nil
}

// runBursts runs each spec's burst of so many calls in turn.
func runBursts(n *node, specs []spec, at, rounds int) ([]*row, error) {
	rows := make([]*row, len(specs))
	for i, s := range specs {
		rows[i] = &row{spec: s}
	}
	rounds++ // the first is thrown away
	pods, err := n.newPods(rounds * len(specs) * at)
	if err != nil {
		return nil, err
	}
	for round := range rounds {
		for _, r := range rows {
			samples, err := runBurst(n, r.spec, pods[:at])
			pods = pods[at:]
			if err != nil && r.err == nil {
				r.err = err
			}
			if round > 0 {
				r.samples = append(r.samples, samples...)
				r.busy = append(r.busy, busy(samples))
			}
		}
	}
	return rows, nil
}

// busy is which part of all processors' time until the end of the last call of a burst the calls have taken: near 1,
// the processors are the limit, and not a lock, a disk or somebody who answers.
func busy(samples []sample) float64 {
	var cpu, last time.Duration
	for _, s := range samples {
		cpu, last = cpu+s.cpu, max(last, s.wall)
	}
	if last == 0 {
		return 0
	}
	return float64(cpu) / float64(last) / float64(runtime.NumCPU())
}

// runBurst starts one call per pod at the same moment. A sample's wall time counts from that moment, so it includes
// the wait for a CPU, as the kubelet sees it.
func runBurst(n *node, s spec, pods []pod) ([]sample, error) {
	samples, errs := make([]sample, len(pods)), make([]error, len(pods))
	var start time.Time
	var ready, done sync.WaitGroup
	gate := make(chan struct{})
	for i, p := range pods {
		c, err := n.call(s, p)
		if err != nil {
			return nil, err
		}
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-gate
			samples[i], errs[i] = c.run()
			samples[i].wall = time.Since(start)
		})
	}
	ready.Wait()
	start = time.Now()
	close(gate)
	done.Wait()
	for i, err := range errs {
		if err == nil {
			err = n.verified(s, pods[i])
		}
		if err != nil {
			return nil, err
		}
	}
	return samples, nil
}

// traceGroup runs a group once more, under ptrace.
func traceGroup(n *node, rows []*row) error {
	p, err := n.newPod()
	if err != nil {
		return err
	}
	for _, r := range rows {
		c, err := n.call(r.spec, p)
		if err != nil {
			return err
		}
		if r.err != nil {
			continue
		}
		if r.traced, err = c.trace(); err != nil {
			r.err = fmt.Errorf("traced: %w", err)
		}
	}
	return nil
}

func (n *node) newPods(count int) ([]pod, error) {
	pods := make([]pod, count)
	for i := range pods {
		var err error
		if pods[i], err = n.newPod(); err != nil {
			return nil, err
		}
	}
	return pods, nil
}
