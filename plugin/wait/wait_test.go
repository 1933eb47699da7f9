package wait

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
)

const self record.NetNS = "0e1f/4026532290/8193"

// simulated is a wait in simulated time (testing/synctest).
type simulated struct {
	args    []string
	lines   []string // of the annotations file; nil: there is no file
	probes  []finding
	slow    time.Duration     // how long each probe takes
	signals []os.Signal       // sent after 7 s
	after   func(*volume)     // called after 7 s
	watch   watcher           // nil: watching fails, as without inotify
	expect  func(expectation) // is called with what each probe expects
	self    func() (record.NetNS, error)
}

// run runs the wait in a synctest bubble. Further probes repeat the last given result.
func (s simulated) run(t *testing.T) (o outcome, took time.Duration) {
	t.Helper()
	v := newVolume(t)
	if s.lines == nil {
		await.Must(t, os.Remove(v.file()))
	} else {
		v.set(s.lines...)
	}
	synctest.Test(t, func(t *testing.T) {
		var stdout, stderr strings.Builder
		signals := make(chan os.Signal, 1)
		p := process{
			Program: testProgram(&stdout, &stderr),
			args:    append([]string{"--file", v.file(), "--termination-log", v.dir + "/log"}, s.args...),
			signals: signals, self: func() (record.NetNS, error) { return self, nil }, watch: s.watch,
		}
		if s.self != nil {
			p.self = s.self
		}
		if s.watch == nil {
			p.watch = func(string) (<-chan struct{}, func(), error) { return nil, nil, errors.New("none here") }
		}
		p.probe = func(_ context.Context, e expectation) finding {
			if s.expect != nil {
				s.expect(e)
			}
			if len(s.probes) == 0 {
				t.Error("probed")
				return finding{}
			}
			time.Sleep(s.slow)
			f := s.probes[0]
			s.probes = s.probes[min(1, len(s.probes)-1):]
			return f
		}
		later := time.AfterFunc(7*time.Second, func() {
			if s.after != nil {
				s.after(v)
			}
			for _, sent := range s.signals {
				signals <- sent
			}
		})
		defer later.Stop()
		start := time.Now()
		o.code = p.run()
		took = time.Since(start)
		o.stdout, o.stderr = stdout.String(), stderr.String()
	})
	message, _ := os.ReadFile(v.dir + "/log")
	o.message = string(message)
	return o, took
}

var (
	fails  = found(missing, "IPv6: a connection is not redirected")
	passes = found(ready, "connections are redirected")
	held   = found(never, "port 15006 is already held")
	mine   = marked("initialized", self)
	other  = marked("initialized", "0e1f/4026532290/1")
	spared = marked("not-required", self, line(annotation.Reason, "mode-none"))
	naked  = marked("not-required", self, line(annotation.Reason, annotation.NoProxy))
	empty  = []string{line("a", "b")}
)

func TestWait(t *testing.T) {
	for _, c := range []struct {
		name string
		simulated
		code int
		took time.Duration
		says []string
	}{
		{"any: annotation, no probe", simulated{lines: mine}, 0, 0, []string{"initialized"}},
		{"any: probe", simulated{lines: empty, probes: []finding{passes}}, 0, 0, []string{"are redirected"}},
		{"any: probe, no file", simulated{probes: []finding{passes}}, 0, 0, []string{"are redirected"}},
		{"any: probe later", simulated{lines: other, probes: []finding{fails, fails, passes}}, 0, 2 * time.Second,
			[]string{"are redirected"}},
		{"any: annotation later", simulated{lines: other, probes: []finding{fails},
			after: func(v *volume) { v.set(mine...) }}, 0, 7 * time.Second, nil},
		{"any: port held, annotation later", simulated{lines: empty, probes: []finding{held},
			after: func(v *volume) { v.set(mine...) }}, 0, 7 * time.Second, nil},
		{"any: port held, then not", simulated{lines: empty, probes: []finding{held, passes}}, 0, time.Second, nil},
		{"any: port held, no file", simulated{probes: []finding{held}}, 126, 0, []string{"already held", "no such file"}},
		{"any: nothing comes", simulated{lines: other, probes: []finding{fails}}, 126, 5 * time.Minute,
			[]string{"gave up after 5m0s", "another network namespace", "IPv6"}},
		{"any: not required", simulated{lines: spared}, 0, 0, []string{"nothing to wait for", "mode-none"}},
		{"any: no cookie, not required", simulated{lines: marked("not-required", "0e1f/1/-"), probes: []finding{fails},
			self: func() (record.NetNS, error) { return "0e1f/1/-", nil }}, 0, 0, []string{"nothing to wait for"}},
		{"any: no proxy", simulated{lines: naked}, 126, 0, []string{"no proxy container"}},
		{"any: no proxy, told later", simulated{lines: empty, probes: []finding{fails},
			after: func(v *volume) { v.set(naked...) }}, 126, 7 * time.Second, []string{"no proxy container"}},
		{"any: no identity", simulated{lines: mine, probes: []finding{passes}, self: func() (record.NetNS, error) {
			return "",
				errors.New("none")
		}}, 0, 0, []string{"are redirected"}},

		{"annotation", simulated{args: []string{"--mode=annotation"}, lines: mine}, 0, 0, []string{"initialized"}},
		{"annotation: later", simulated{args: []string{"--mode=annotation"}, lines: other,
			after: func(v *volume) { v.set(mine...) }}, 0, 7 * time.Second, nil},
		{"annotation: of another", simulated{args: []string{"--mode=annotation", "--timeout=20"}, lines: other}, 126,
			20 * time.Second, []string{"gave up after 20s", "another network namespace"}},
		{"annotation: no file", simulated{args: []string{"--mode=annotation"}}, 126, 0,
			[]string{"no such file", "downward API"}},
		{"annotation: not required", simulated{args: []string{"--mode=annotation"}, lines: spared}, 0, 0,
			[]string{"mode-none"}},
		{"annotation: no proxy", simulated{args: []string{"--mode=annotation"}, lines: naked}, 126, 0,
			[]string{"no proxy container"}},
		{"annotation: no cookie", simulated{args: []string{"--mode=annotation"}, lines: mine,
			self: func() (record.NetNS, error) { return "0e1f/1/-", nil }}, 126, 0, []string{"--mode probe"}},

		{"probe", simulated{args: []string{"--mode=probe"}, probes: []finding{passes}}, 0, 0, []string{"are redirected"}},
		{"probe: later", simulated{args: []string{"--mode=probe"}, lines: empty, probes: []finding{fails, passes}}, 0,
			time.Second, nil},
		{"probe: a mark does not count", simulated{args: []string{"--mode=probe", "--timeout=9s"}, lines: mine,
			probes: []finding{fails}}, 126, 9 * time.Second, []string{"gave up after 9s", "IPv6"}},
		{"probe: slow", simulated{args: []string{"--mode=probe", "--timeout=1"}, probes: []finding{passes},
			slow: 3 * time.Second}, 0, 3 * time.Second, nil},
		{"probe: slow, and not redirected", simulated{args: []string{"--mode=probe", "--timeout=1"}, probes: []finding{fails},
			slow: 3 * time.Second}, 126, 3 * time.Second, []string{"gave up after 1s", "IPv6"}},
		{"SIGTERM, slow", simulated{args: []string{"--timeout=1"}, lines: other, probes: []finding{fails},
			signals: []os.Signal{syscall.SIGTERM}, slow: 8 * time.Second}, 143, 8 * time.Second, []string{"SIGTERM after 7s"}},
		{"probe: port held", simulated{args: []string{"--mode=probe"}, probes: []finding{held}}, 126, 0,
			[]string{"15006 is already held"}},

		{"SIGTERM", simulated{lines: other, probes: []finding{fails}, signals: []os.Signal{syscall.SIGTERM}}, 143,
			7 * time.Second, []string{"SIGTERM after 7s", "IPv6"}},
		{"SIGINT", simulated{lines: other, probes: []finding{fails}, signals: []os.Signal{syscall.SIGINT}}, 130,
			7 * time.Second, []string{"SIGINT"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, took := c.run(t)
			got.expect(t, c.code, c.says...)
			if took < c.took || took > c.took+500*time.Millisecond { // simulated time is exact, except for the poll interval
				t.Errorf("took %s, not %s", took, c.took)
			}
		})
	}
}

// TestProgress checks that a line every five seconds says what is missing.
func TestProgress(t *testing.T) {
	got, _ := simulated{args: []string{"--timeout=17"}, lines: other, probes: []finding{fails}}.run(t)
	lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
	if len(lines) != 4 {
		t.Fatalf("want three lines of progress and one of the end, got %q", lines)
	}
	for i, line := range lines[:3] {
		for _, word := range []string{"waiting for " + []string{"5s", "10s", "15s"}[i], "another network namespace", "IPv6"} {
			if !strings.Contains(line, word) {
				t.Errorf("want %q in %q", word, line)
			}
		}
	}
}

// TestExpectation checks that the probe follows the pod's annotations, as the plugin does.
func TestExpectation(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		lines []string
		want  expectation
	}{
		{"defaults", nil, empty, expectation{1337, 15001, 15006, nil, familiesAll}},
		{"flags", []string{"--proxy-uid=1", "--outbound-port=2", "--inbound-port=3"}, empty,
			expectation{1, 2, 3, nil, familiesAll}},
		{"annotations", []string{"--proxy-uid=1"}, []string{line(annotation.EnvoyUserID, "2000"),
			line(annotation.EnvoyPort, "15101"), line(annotation.IncludeOutboundIPRanges, "*")},
			expectation{2000, 15101, 15006, nil, familiesAll}},
		{"wrong annotations", nil, []string{line(annotation.EnvoyUserID, "0"), line(annotation.EnvoyPort, "x")},
			expectation{1337, 15001, 15006, nil, familiesAll}},
	} {
		var asked []expectation
		simulated{args: c.args, lines: c.lines, probes: []finding{passes},
			expect: func(e expectation) { asked = append(asked, e) }}.run(t)
		if len(asked) != 1 || asked[0] != c.want {
			t.Errorf("%s: want %v, got %v", c.name, c.want, asked)
		}
	}
}

func TestTerminationMessage(t *testing.T) {
	got, _ := simulated{args: []string{"--mode=annotation", "--timeout=1"},
		lines: marked("é"+strings.Repeat("€", 3000), self)}.run(t)
	if got.code != 126 || len(got.message) > 4096 || len(got.message) < 4090 || !strings.HasSuffix(got.message, "…") ||
		strings.ToValidUTF8(got.message, "") != got.message {
		t.Errorf("%d bytes: %s", len(got.message), got)
	}
	if got, _ := (simulated{args: []string{"--mode=annotation", "--termination-log="}}).run(t); got.code != 126 ||
		got.message != "" {
		t.Errorf("no file was wanted: %s", got)
	}
	unwritable := simulated{args: []string{"--mode=annotation", "--termination-log=/proc/nowhere/log"}}
	if got, _ := unwritable.run(t); got.code != 126 || !strings.Contains(got.stderr, "writing the termination message") {
		t.Errorf("an unwritable file: %s", got)
	}
}
