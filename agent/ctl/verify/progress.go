package verify

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// progress tells a person what is going on: on a terminal in one line with a bar, elsewhere by a line for each step.
type progress struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	nodes    int // 0 before they are known
	proven   int
}

// barWidth is how many columns the bar has.
const barWidth = 20

// say tells of a step.
func (p *progress) say(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.terminal {
		fmt.Fprintln(p.out, what)
		return
	}
	full := 0
	if p.nodes > 0 {
		full = barWidth * p.proven / p.nodes
	}
	// Back to the beginning, and nothing of what stood there. Source: ECMA-48, 8.3.41 (EL).
	bar := strings.Repeat("#", full) + strings.Repeat(".", barWidth-full)
	fmt.Fprintf(p.out, "\r[%s] %d/%d %.60s\x1b[K", bar, p.proven, p.nodes, what)
}

// step tells what is done on a node.
func (p *progress) step(node, what string) { p.say(node + ": " + what) }

// done tells that a node is done.
func (p *progress) done(node string, verdict Verdict) {
	p.mu.Lock()
	p.proven++
	p.mu.Unlock()
	p.say(node + ": " + string(verdict))
}

// warn tells what stays to be read.
func (p *progress) warn(what string) {
	p.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.out, what)
}

// end leaves the line to what comes.
func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
