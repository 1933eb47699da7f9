package temporary

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/columns"
)

// Progress shows progress to a person: on a terminal in one line with a bar, otherwise with a line for each step.
type Progress struct {
	mu       sync.Mutex
	Out      io.Writer
	Terminal bool
	Nodes    int        // 0 until they are known
	Columns  func() int // of the terminal, which may change; nil or 0 for the usual number
	finished int
}

// NewProgress returns progress for a stream.
func NewProgress(out io.Writer) *Progress {
	return &Progress{Out: out, Terminal: output.IsTerminal(out), Columns: func() int { return output.ColumnsOf(out) }}
}

// Columns of the bar, of terminals that do not report their size, and of the narrowest terminal with a bar.
const (
	barWidth     = 20
	usualColumns = 80
	withBar      = 60
)

// Say shows a step.
func (p *Progress) Say(what string) {
	what = output.Printable(what)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.Terminal {
		fmt.Fprintln(p.Out, what)
		return
	}
	full, has := 0, 0
	if p.Nodes > 0 {
		full = barWidth * p.finished / p.Nodes
	}
	if p.Columns != nil {
		has = p.Columns()
	}
	if has <= 0 {
		has = usualColumns
	}
	line := fmt.Sprintf("%d/%d %s", p.finished, p.Nodes, what)
	if has >= withBar {
		line = "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "] " + line
	}
	// Return to the beginning and erase the line. A line that is wider than the terminal could not be overwritten. Source:
	// ECMA-48, 8.3.41 (EL).
	line = strings.Join(strings.Fields(line), " ")
	fmt.Fprintf(p.Out, "\r%s\x1b[K", columns.Head(line, has-1))
}

// Step shows what is done on a node.
func (p *Progress) Step(node, what string) { p.Say(node + ": " + what) }

// Done shows that a node is done.
func (p *Progress) Done(node string, verdict string) {
	p.mu.Lock()
	p.finished++
	p.mu.Unlock()
	p.Say(node + ": " + verdict)
}

// Warn prints a line that stays. It may have texts of the API server and of other objects.
func (p *Progress) Warn(what string) {
	p.End()
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.Out, output.Printable(what))
}

// End ends the line, so that other output can follow.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Terminal {
		fmt.Fprint(p.Out, "\r\x1b[K")
	}
}
