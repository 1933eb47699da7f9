package agent

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/sirupsen/logrus"
)

// The taint is removed once the agent is ready, after failures too, and whenever it is added again. If the node does
// not have it, no request is sent. If the node is not known, one request is sent. An error is logged once, not in every
// round.
func TestUntainter(t *testing.T) {
	refused, away := errors.New("forbidden"), errors.New("connection refused")
	const removed = "ready: removed the startup taint"
	// round is what the agent knows in one round, and the result of a removal if it is tried.
	type round struct {
		ready, have, known bool
		tried, removed     bool
		err                error
	}
	none, there := round{ready: true, known: true}, round{true, true, true, true, true, nil}
	early, fails := round{have: true, known: true}, round{true, true, true, true, false, refused}
	unknown, blind := round{ready: true}, round{true, false, false, true, true, nil}
	blindFails := round{true, false, false, true, false, refused}
	for name, c := range map[string]struct {
		rounds []round
		logged []string
	}{
		"ready":               {[]round{there, none}, []string{removed}},
		"ready later":         {[]round{early, early, early, there, none}, []string{removed}},
		"born without":        {[]round{none, none, none}, nil},
		"comes later":         {[]round{none, none, there, none}, []string{removed}},
		"comes again":         {[]round{there, none, none, there, none}, []string{removed, removed}},
		"comes while unready": {[]round{there, none, early, early, there, none}, []string{removed, removed}},
		"the watch is behind": {[]round{there, {true, true, true, true, false, nil}, none}, []string{removed}},
		"refused for a while": {[]round{fails, fails, there, none}, []string{"forbidden", removed}},
		"fails in two ways": {[]round{fails, {true, true, true, true, false, away}, {true, true, true, true, false, away},
			none}, []string{"forbidden", "connection refused"}},
		"refused again after it went": {[]round{fails, there, fails}, []string{"forbidden", removed, "forbidden"}},
		"not known":                   {[]round{blind, unknown, unknown, there}, []string{removed, removed}},
		"not known, and refused": {[]round{blindFails, blindFails, {true, false, false, true, false, nil}, unknown},
			[]string{"forbidden"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			log := logrus.New()
			log.SetOutput(&out)
			ctx, end := context.WithCancel(t.Context())
			defer end()
			n, tried := -1, false
			untainter{
				key: "k", every: time.Hour, log: log,
				have: func(key string) (have, known bool) {
					if n >= 0 && tried != c.rounds[n].tried {
						t.Errorf("%s, round %d: tried is %t", name, n, tried)
					}
					if n++; n == len(c.rounds) || key != "k" {
						end()
						return false, true
					}
					tried = false
					return c.rounds[n].have, c.rounds[n].known
				},
				ready: func() bool { return n < len(c.rounds) && c.rounds[n].ready },
				remove: func(_ context.Context, key string) (bool, error) {
					if tried || key != "k" {
						t.Errorf("%s, round %d: removed %q, again is %t", name, n, key, tried)
					}
					tried = true
					return c.rounds[n].removed, c.rounds[n].err
				},
			}.run(ctx)
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if out.Len() == 0 {
				lines = nil
			}
			if len(lines) != len(c.logged) {
				t.Fatalf("%s: logged %q, want %q", name, lines, c.logged)
			}
			for i, want := range c.logged {
				if !strings.Contains(lines[i], want) {
					t.Errorf("%s: logged %q, want %q", name, lines, c.logged)
				}
			}
		})
	}
}

// Without the right to remove the taint, an agent asks once a minute at most, so that those of all nodes are no load.
func TestUntainterRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithTimeout(t.Context(), time.Hour)
		defer end()
		tries := 0
		untainter{
			key: "k", every: 5 * time.Second, log: agenttest.Quiet(),
			have: func(string) (have, known bool) { return true, true }, ready: func() bool { return true },
			remove: func(context.Context, string) (bool, error) { tries++; return false, errors.New("forbidden") },
		}.run(ctx)
		if tries < 40 || tries > 65 {
			t.Errorf("%d tries in an hour", tries)
		}
	})
}
