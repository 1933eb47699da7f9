package temporary

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/istio-pod-network/controller/agent/ctl/output"
)

// Progress tells a person what is going on: on a terminal in one line with a bar, elsewhere by a line for each step.
type Progress struct {
	mu       sync.Mutex
	Out      io.Writer
	Terminal bool
	Nodes    int // 0 before they are known
	finished int
}

// Columns of the bar, and of a step beside it: a line that goes on in the next one could not be written over, and
// terminals have 80 columns and more.
const (
	barWidth    = 20
	longestStep = 45
)

// Say tells of a step.
func (p *Progress) Say(what string) {
	what = output.Printable(what)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.Terminal {
		fmt.Fprintln(p.Out, what)
		return
	}
	full := 0
	if p.Nodes > 0 {
		full = barWidth * p.finished / p.Nodes
	}
	// Back to the beginning, and nothing of what stood there. Source: ECMA-48, 8.3.41 (EL).
	bar := strings.Repeat("#", full) + strings.Repeat(".", barWidth-full)
	fmt.Fprintf(p.Out, "\r[%s] %d/%d %.*s\x1b[K", bar, p.finished, p.Nodes, longestStep, what)
}

// Step tells what is done on a node.
func (p *Progress) Step(node, what string) { p.Say(node + ": " + what) }

// Done tells that a node is done.
func (p *Progress) Done(node string, verdict string) {
	p.mu.Lock()
	p.finished++
	p.mu.Unlock()
	p.Say(node + ": " + verdict)
}

// Warn tells what stays to be read. It may have words of the API server and of others' objects.
func (p *Progress) Warn(what string) {
	p.End()
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.Out, output.Printable(what))
}

// End leaves the line to what comes.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Terminal {
		fmt.Fprint(p.Out, "\r\x1b[K")
	}
}
