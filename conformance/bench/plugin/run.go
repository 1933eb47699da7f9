package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"
)

// warmup is the number of discarded runs. They bring the binaries into the page cache and load kernel modules.
const warmup = 2

// row has the measurements of one spec.
type row struct {
	spec
	samples []sample
	busy    []float64 // of bursts: the calls' share of the processors' time until the last call's end
	traced  traced
	err     error // the first failure; the rest of the row is then not run
}

// runAll measures everything: single calls, then bursts, then traced runs.
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

// runSingle runs all groups once in each round. What runs before a call changes its cost, so each round has another
// order. The orders are the same in every run of the benchmark.
func runSingle(n *node, groups []group, rounds int) ([][]*row, error) {
	rows := make([][]*row, len(groups))
	for i, g := range groups {
		for _, s := range g {
			rows[i] = append(rows[i], &row{spec: s})
		}
	}
	rounds += warmup
	// All namespaces are made first and kept: making one keeps the kernel busy for long, and destroying one for even
	// longer.
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

// runBursts runs each spec's burst of this size in turn.
func runBursts(n *node, specs []spec, at, rounds int) ([]*row, error) {
	rows := make([]*row, len(specs))
	for i, s := range specs {
		rows[i] = &row{spec: s}
	}
	rounds++ // the first round is discarded
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

// busy returns the calls' share of all processors' time until the end of the burst's last call. Near 1, the processors
// are the limit, and not a lock, a disk or a slow answer.
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

// runBurst starts one call for each pod at the same moment. A sample's wall time counts from that moment, so it
// includes the wait for a CPU, as for the kubelet.
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
