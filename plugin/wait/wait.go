package wait

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/plugin/record"
)

const (
	probeEvery    = time.Second
	progressEvery = 5 * time.Second
)

// waiter is one run of the wait.
type waiter struct {
	process
	options
	own     record.NetNS
	since   time.Time
	mark    finding                     // the state of the annotations
	probed  finding                     // the state of the last probe
	expect  atomic.Pointer[expectation] // for the next probe
	running sync.WaitGroup
}

// wait waits for a proof and returns the exit code.
func (p process) wait(o options) int {
	w := &waiter{process: p, options: o, since: time.Now()}
	w.expect.Store(&o.expected)
	w.mark, w.probed = found(missing, "not read yet"), found(missing, "no result yet")
	own, err := p.self()
	if err != nil { // without the own identity no mark counts
		p.sayf("%v", err)
	}
	w.own = own
	ctx, cancel := context.WithCancel(context.Background())
	defer w.running.Wait() // the probe must close its sockets
	defer cancel()
	return w.loop(ctx)
}

// loop reads the annotations whenever they may have changed, and probes in parallel.
func (w *waiter) loop(ctx context.Context) int {
	changes, stop := w.watchFile()
	defer stop()
	deadline, progress, poll := time.NewTimer(w.timeout), time.NewTicker(progressEvery), time.NewTicker(w.interval())
	defer deadline.Stop()
	defer progress.Stop()
	defer poll.Stop()
	w.look()
	// If the annotations are enough, no probe and none of its packets are needed.
	if result := w.result(); result.state != missing {
		return w.end(result)
	}
	results := w.probes(ctx)
	for over, probing := false, results != nil; !over || probing; { // on a busy node the first probe may end late
		select {
		case s := <-w.signals:
			return w.interrupted(s)
		case <-deadline.C:
			over = true
		case <-progress.C:
			w.sayf("waiting for %s: %s", w.elapsed(), w.result().text)
			continue
		case <-changes:
			w.look()
		case <-poll.C:
			w.look()
		case w.probed = <-results:
			probing = false
		}
		if result := w.result(); result.state != missing {
			return w.end(result)
		}
	}
	return w.fail(exitNotReady, "gave up after "+w.timeout.String()+": "+w.result().text+advice)
}

// probes starts probing until ctx ends. It returns nil if the mode does not use the probe.
func (w *waiter) probes(ctx context.Context) <-chan finding {
	if w.mode == modeAnnotation {
		return nil
	}
	results := make(chan finding)
	w.running.Go(func() {
		for ctx.Err() == nil {
			select {
			case results <- w.probe(ctx, *w.expect.Load()):
			case <-ctx.Done():
			}
			select {
			case <-time.After(probeEvery):
			case <-ctx.Done():
			}
		}
	})
	return results
}

// watchFile watches the directory of the annotations. Without inotify or without the directory, only polling remains.
func (w *waiter) watchFile() (<-chan struct{}, func()) {
	for _, path := range w.files {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if changes, stop, err := w.watch(filepath.Dir(path)); err == nil {
			return changes, stop
		}
	}
	return nil, func() {}
}

// look reads the annotations and updates the mark and the expectation.
func (w *waiter) look() {
	a, err := readAnnotations(w.files)
	if err != nil {
		w.mark = found(never, "%v", err)
		return
	}
	w.mark = w.readMark(a, w.own)
	expect := w.expected.with(a, w.mark.state == ready && a[w.statusKey] == w.value)
	w.expect.Store(&expect)
}

// result combines both proofs as the mode requires.
func (w *waiter) result() finding {
	switch {
	case w.mode == modeAnnotation:
		return w.mark
	case w.mode == modeProbe:
		return w.probed
	case w.mark.state == ready || w.mark.state == refused:
		return w.mark
	case w.probed.state == ready:
		return w.probed
	}
	both := found(missing, "annotation: %s; probe: %s", w.mark.text, w.probed.text)
	if w.mark.state == never && w.probed.state == never {
		both.state = never
	}
	return both
}

// end reports the final result and returns the exit code.
func (w *waiter) end(result finding) int {
	if result.state == ready {
		fmt.Fprintf(w.Stdout, "%s: ready after %s: %s\n", w.Name, w.elapsed(), result.text)
		return exitReady
	}
	return w.fail(exitNotReady, result.text)
}

func (w *waiter) interrupted(s os.Signal) int {
	code, name := exitTerminated, "SIGTERM"
	if s == syscall.SIGINT {
		code, name = exitInterrupted, "SIGINT"
	}
	return w.fail(code, "ended by "+name+" after "+w.elapsed().String()+", still waiting: "+w.result().text)
}

func (w *waiter) elapsed() time.Duration { return time.Since(w.since).Round(time.Millisecond) }
