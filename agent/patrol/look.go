package patrol

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"

	"github.com/istio-pod-network/controller/internal/excerpt"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/record"
)

// Packet is a packet to trace, in the form of istio-pod-network-look's flags.
type Packet struct {
	From  string // outside, or uid:N:GROUP
	Proto string // tcp or udp
	To    string // ADDRESS:PORT
}

const (
	// mostLookMemory limits the program's heap: the memory limit of the agent's container applies to both.
	mostLookMemory = "GOMEMLIMIT=16MiB"
	// longestProblem is how many bytes of the program's error are passed on.
	longestProblem = 300
)

// Trace has the kernel report what happens to a packet in the network namespace of a record. It does not change the
// pod's rules.
func (r *Repairer) Trace(ctx context.Context, its record.Record, p Packet) report.Trace {
	if cannot := r.Cannot(its.Backend); cannot.Why != "" {
		return report.Trace{Why: cannot.Why, Value: cannot.Value}
	}
	sandboxes := sandboxes{dir: r.CacheDir, netns: r.NetNSDir} // the patrol's own value is in use
	_, netns, err := sandboxes.attached(its)
	if err != nil {
		return report.Trace{Why: err.Error()}
	}
	var told report.Trace
	err = r.look(ctx, &told, "trace", "--netns="+netns, "--netns-id="+string(its.NetNS), "--from="+p.From,
		"--proto="+p.Proto, "--to="+p.To)
	if err != nil {
		return report.Trace{Why: err.Error()}
	}
	return told
}

// Rules reads all packet rules in the network namespace of a record, whoever has written them.
func (r *Repairer) Rules(ctx context.Context, its record.Record) report.Rules {
	none := report.Rules{Tables: []report.Table{}}
	if r.Mode != Apply {
		cannot := r.Cannot("")
		none.Why, none.Value = cannot.Why, cannot.Value
		return none
	}
	sandboxes := sandboxes{dir: r.CacheDir, netns: r.NetNSDir}
	_, netns, err := sandboxes.attached(its)
	var told report.Rules
	if err == nil {
		err = r.look(ctx, &told, "rules", "--netns="+netns, "--netns-id="+string(its.NetNS))
	}
	if err != nil {
		none.Why = err.Error()
		return none
	}
	return told
}

// look runs the program when it is its turn, and decodes its output.
func (r *Repairer) look(ctx context.Context, told any, args ...string) error {
	end, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	cmd := exec.CommandContext(ctx, r.Look, args...)
	cmd.Env = []string{"GOMAXPROCS=1", mostLookMemory}
	cmd.WaitDelay = leftWithin
	out, problems := &capped{most: report.Most}, &capped{most: longestProblem}
	cmd.Stdout, cmd.Stderr = out, problems
	err = cmd.Run()
	said := excerpt.Head(strings.TrimSpace(problems.kept.String()), longestProblem)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the agent's image has no %s", r.Look)
	case ctx.Err() != nil:
		return fmt.Errorf("%s has not ended in time", r.Look)
	case err != nil && said != "":
		return errors.New(said)
	case err != nil:
		return fmt.Errorf("running %s: %w", r.Look, err)
	}
	if err := json.Unmarshal(out.kept.Bytes(), told); err != nil {
		return fmt.Errorf("what %s prints: %w", r.Look, err)
	}
	return nil
}

// capped keeps the start of what is written. The buffer is a field, not embedded, because bytes.Buffer.ReadFrom would
// keep everything.
type capped struct {
	kept bytes.Buffer
	most int
}

// Write accepts everything and keeps what fits: a short write would be a broken pipe for the program.
func (c *capped) Write(data []byte) (int, error) {
	_, _ = c.kept.Write(data[:min(len(data), c.most-c.kept.Len())])
	return len(data), nil
}
