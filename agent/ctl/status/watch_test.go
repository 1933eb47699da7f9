package status

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/inspect"
)

// --watch continues until the user ends it, and ends with the last look's result.
func TestWatch(t *testing.T) {
	f := two()
	f.change(func(n *inspect.Node) { n.Ready = false })
	ctx, cancel := context.WithCancel(t.Context())
	var out ended
	out.done = cancel
	if err := (options{watch: true}).run(ctx, f, output.Writer{Out: &out}); !errors.Is(err, outcome.ErrNotWell) {
		t.Error(err)
	}
	err := (options{watch: true}).run(t.Context(), &fake{}, output.Writer{})
	if outcome.StatusOf(err) != outcome.NotAsked {
		t.Error(err)
	}
}

// If the user ends it before any answer, the result is neither that all is well nor a timeout.
func TestBrokenOff(t *testing.T) {
	f := two()
	f.errs = map[string]error{"agents": context.Canceled}
	for name, o := range map[string]options{"watch": {watch: true}, "wait": {wait: true, timeout: time.Hour}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("interrupt signal received"))
		err := o.run(ctx, f, output.Writer{})
		if outcome.StatusOf(err) != outcome.NotAsked || strings.Contains(err.Error(), "within") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A program can separate the looks of --watch: YAML documents, or JSON objects one after the other.
func TestWatchForPrograms(t *testing.T) {
	for format, want := range map[output.Format]string{
		output.YAML: "---\napiVersion: ", output.JSON: "{\n  \"apiVersion\": ",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var out strings.Builder
		w := output.Writer{Format: format, Out: writer(func(p []byte) (int, error) { return out.Write(p) })}
		f := two()
		looks := 0
		f.asked = func() {
			if looks++; looks == 3 {
				cancel()
			}
		}
		if err := (options{watch: true}).run(ctx, f, w); err != nil || strings.Count(out.String(), want) != 2 {
			t.Errorf("%s: %v: %s", format, err, out.String())
		}
	}
}

// After a first answer, --watch reports failures and continues. In a program's output there are only objects.
func TestWatchGoesOn(t *testing.T) {
	for _, format := range []output.Format{output.Table, output.JSON, output.YAML} {
		watchedOn(t, format)
	}
}

func watchedOn(t *testing.T, format output.Format) {
	f := two()
	f.errs = map[string]error{}
	looks := 0
	f.asked = func() {
		if looks++; looks == 2 {
			f.errs["agents"] = errors.New("connection refused")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs strings.Builder
	to := func(b *strings.Builder) writer {
		return func(p []byte) (int, error) {
			if b.Write(p); strings.Contains(b.String(), "connection refused") {
				cancel()
			}
			return len(p), nil
		}
	}
	err := options{watch: true, stderr: to(&errs)}.run(ctx, f, output.Writer{Format: format, Out: to(&out)})
	text := out.String()
	if format != output.Table {
		text = errs.String()
	}
	if outcome.StatusOf(err) != outcome.NotAsked || !strings.Contains(text, "not asked: ") ||
		strings.Contains(out.String(), "not asked: ") == (format != output.Table) {
		t.Errorf("%s: %v: %s, %s", format, err, out.String(), errs.String())
	}
}
