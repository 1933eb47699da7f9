package await

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// probe is a testing.TB under test: it ends its goroutine where a test would end.
type probe struct {
	testing.TB
	said string
}

func (p *probe) Helper()                           {}
func (p *probe) Fatal(args ...any)                 { p.said = fmt.Sprint(args...); runtime.Goexit() }
func (p *probe) Fatalf(format string, args ...any) { p.Fatal(fmt.Sprintf(format, args...)) }

// ending returns the text with which a test ends in do, or "" if it continues.
func ending(do func(testing.TB)) string {
	p, done := &probe{}, make(chan struct{})
	go func() { defer close(done); do(p) }()
	<-done
	return p.said
}

func TestAwait(t *testing.T) {
	wrong := errors.New("it is wrong")
	after := func(looks int) func() bool { return func() bool { looks--; return looks < 0 } }
	for name, c := range map[string]struct {
		do   func(testing.TB)
		want string
	}{
		"no error": {func(t testing.TB) { Must(t, nil) }, ""},
		"an error": {func(t testing.TB) { Must(t, wrong) }, "it is wrong"},
		"at once":  {func(t testing.TB) { Eventually(t, 0, "that", after(0)) }, ""},
		"later":    {func(t testing.TB) { Eventually(t, time.Hour, "that", after(3)) }, ""},
		"never": {func(t testing.TB) { Eventually(t, time.Nanosecond, "that", func() bool { return false }) },
			"not within 1ns: that"},
		"works later": {func(t testing.TB) {
			holds := after(3)
			Success(t, time.Hour, "that", func() error { return map[bool]error{false: wrong}[holds()] })
		}, ""},
		"never works": {func(t testing.TB) { Success(t, time.Nanosecond, "that", func() error { return wrong }) },
			"not within 1ns: that: it is wrong"},
		"holds at all": {func(t testing.TB) { Eventually(t, -time.Hour, "that", func() bool { return true }) }, ""},
	} {
		if said := ending(c.do); said != c.want || strings.Contains(said, "%!") {
			t.Errorf("%s: %q, want %q", name, said, c.want)
		}
	}
}
