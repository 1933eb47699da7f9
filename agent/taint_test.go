package agent

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
)

// The taint goes once the agent is ready, whatever fails before; a taint that is not there is not looked for again.
// What fails is logged once, not in every round.
func TestUntainter(t *testing.T) {
	refused, away := errors.New("forbidden"), errors.New("connection refused")
	type answer struct {
		removed bool
		err     error
	}
	for name, c := range map[string]struct {
		notReady int // rounds
		answers  []answer
		logged   []string
	}{
		"ready":        {0, []answer{{true, nil}}, []string{"ready: removed the startup taint"}},
		"ready later":  {5, []answer{{true, nil}}, []string{"ready: removed the startup taint"}},
		"born without": {1, []answer{{false, nil}}, nil},
		"refused for a while": {0, []answer{{false, refused}, {false, refused}, {true, nil}},
			[]string{"forbidden", "ready: removed"}},
		"fails in two ways": {0, []answer{{false, refused}, {false, away}, {false, away}, {false, nil}},
			[]string{"forbidden", "connection refused"}},
		"refused until it ends": {0, []answer{{false, refused}, {false, refused}}, []string{"forbidden"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			log := logrus.New()
			log.SetOutput(&out)
			ctx, end := context.WithCancel(t.Context())
			defer end()
			looks, calls := 0, 0
			untainter{
				key: "k", every: time.Hour, log: log,
				ready: func() bool { looks++; return looks > c.notReady },
				remove: func(_ context.Context, key string) (bool, error) {
					if looks <= c.notReady || key != "k" || calls == len(c.answers) {
						t.Fatalf("%s: removed %q after %d looks and %d calls", name, key, looks, calls)
					}
					calls++
					if a := c.answers[calls-1]; calls < len(c.answers) || a.err == nil {
						return a.removed, a.err
					}
					end()
					return false, c.answers[calls-1].err
				},
			}.run(ctx)
			if calls != len(c.answers) {
				t.Errorf("%s: %d calls, want %d", name, calls, len(c.answers))
			}
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
