package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// rounds makes all measurements that the state does not have yet.
func (b *bench) rounds(ctx context.Context, p plan, chosen []way, s *state) error {
	say("the seed of the order is %d", s.seed)
	for round := 1; round <= p.rounds; round++ {
		for _, w := range order(chosen, s.seed, round) {
			parts := b.parts(p, round, w)
			if !slices.ContainsFunc(parts, func(part part) bool { return !s.has(part.measurement) }) {
				continue
			}
			if time.Now().After(b.until) {
				say("the time is over; the next run goes on here")
				return nil
			}
			b.progress = fmt.Sprintf("round %d of %d, %s", round, p.rounds, w.key)
			if err := b.measure(ctx, w, parts, s); err != nil {
				return fmt.Errorf("%s: %w", b.progress, err)
			}
		}
	}
	return nil
}

// order returns the ways in the order of a round.
func order(chosen []way, seed uint64, round int) []way {
	shuffled := slices.Clone(chosen)
	rand.New(rand.NewPCG(seed, uint64(round))).Shuffle(len(shuffled), func(i, j int) {
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	})
	return shuffled
}

// part is a planned measurement of a way.
type part struct {
	measurement
	early bool // it begins without the agent, and installs it
	do    doing
}

// doing makes a measurement.
type doing func(*visit, context.Context, *measurement) error

// parts returns the measurements of a way in a round.
func (b *bench) parts(p plan, round int, w way) []part {
	var all []part
	add := func(name string, early bool, count int, do doing) {
		for i := range count {
			all = append(all, part{measurement{Round: round, Way: w.key, Part: name, Number: i + 1}, early, do})
		}
	}
	wrong := 0 // how often each fault is measured
	if b.faults && round == 1 && !w.direct {
		wrong = 1
	}
	for _, f := range faults {
		if f.early && w.agent != nil {
			add(f.name, true, wrong, f.do)
		}
	}
	if round == 1 {
		add(partNeeds, false, 1, (*visit).needs)
	}
	add(partSingle, false, p.single, (*visit).single)
	if p.full > 0 {
		add(partFill, false, 1, func(v *visit, ctx context.Context, m *measurement) error { return v.fill(ctx, m, p.full) })
	}
	for _, f := range faults {
		if !f.early && (w.agent != nil || !f.agent) {
			add(f.name, false, wrong, f.do)
		}
	}
	return all
}

// measure installs a way, makes the measurements that the state lacks, and removes it.
func (b *bench) measure(ctx context.Context, w way, parts []part, s *state) (err error) {
	v, err := b.open(ctx, w, parts[0].Round)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, v.close(ctx))
	}()
	installed := false
	for _, p := range parts {
		if s.has(p.measurement) {
			continue
		}
		if time.Now().After(b.until) {
			return nil
		}
		if !p.early && !installed {
			if err := v.install(ctx); err != nil {
				return err
			}
		}
		installed = true // an early part has installed it, too
		m := p.measurement
		if err := p.do(v, ctx, &m); err != nil {
			return fmt.Errorf("%s %d: %w", m.Part, m.Number, err)
		}
		say("%s: %s", b.progress, m.line())
		if err := s.add(m); err != nil {
			return err
		}
	}
	return nil
}

// served returns an error if a pod was not served as its way intends.
func (m measurement) served() error {
	if m.Stuck+m.Leaked+m.Silent == 0 {
		return nil
	}
	return fmt.Errorf("not as it should be: %s, %d without a request", m.line(), m.Silent)
}

// line returns the measurement as a line of progress.
func (m measurement) line() string {
	if m.Needs != nil {
		return fmt.Sprintf("needs Pod Security %s, containers %q, credentials %q", m.Needs.Level, m.Needs.Containers,
			m.Needs.Tokens)
	}
	return fmt.Sprintf("%s %d: %d pods, ready after %.2f s, first request after %.2f s, %d leaked, %d stuck", m.Part,
		m.Number, m.Count, m.Ready, m.Request, m.Leaked, m.Stuck)
}
