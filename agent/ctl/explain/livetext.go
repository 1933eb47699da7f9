package explain

import (
	"fmt"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/plugin/record"
)

// fewEvents is how many Events the table shows: the last ones.
const fewEvents = 5

// write writes the pod's state in its cluster.
func (l *Live) write(t *output.Text) {
	t.WriteByte('\n')
	rows := [][]string{{"LOOKED AT", "FOUND"}, {"node", l.where()}, {"mark", l.Mark.text()}, {"init wait", l.Wait.text()}}
	if l.Wait != nil {
		for _, line := range l.Wait.Log {
			rows = append(rows, []string{"its log", line})
		}
	}
	if l.told != nil {
		rows = append(rows, []string{"record", l.recorded()}, []string{"rules", l.compared()})
	}
	for _, w := range l.Injection {
		rows = append(rows, []string{"injection", w.text()})
	}
	t.Columns(rows)
	l.writeEvents(t)
	if len(l.NotLookedAt)+len(l.Notes) > 0 {
		t.WriteByte('\n')
	}
	for _, what := range l.NotLookedAt {
		t.Item("?", "Not looked at: %s.", strings.TrimSuffix(what, "."))
	}
	for _, note := range l.Notes {
		t.Item("!", "%s.", note)
	}
	t.WriteByte('\n')
	if len(l.Findings) == 0 {
		text := string(l.State)
		if r := l.Rules; r != nil && l.redirects() && !r.Looked {
			text += ", but for its rules, which nobody has looked at"
		}
		t.Line(l.State.Colour(), "%s %s", l.State.Sign(), text)
	}
	for i, f := range l.Findings {
		f.What = strings.TrimSuffix(f.What, ".") + "."
		t.Finding(l.verdicts[i], string(l.verdicts[i]), f)
	}
}

// redirects reports whether the record says that there are rules.
func (l *Live) redirects() bool { return l.Record != nil && l.Record.Decision == record.Redirect }

// where returns the node and its agent.
func (l *Live) where() string {
	switch {
	case l.Node == "":
		return "none yet: it is not scheduled"
	case l.Agent == "":
		return l.Node
	}
	return l.Node + ", agent " + l.Agent
}

// text returns the mark as one line.
func (m *Mark) text() string {
	if m == nil {
		return "none"
	}
	text := m.Status
	if m.Reason != "" {
		text += " (" + m.Reason + ")"
	}
	if m.Families != "" {
		text += ", " + m.Families + " alone"
	}
	return text + ", of network namespace " + m.NetNS
}

// text returns the wait as one line.
func (w *Wait) text() string {
	if w == nil {
		return "none"
	}
	text := w.Container + ": " + w.State
	if w.Since != nil {
		text += " at " + w.Since.UTC().Format(time.RFC3339)
		if w.State == waitRuns {
			text = w.Container + ": " + w.State + " since " + w.Since.UTC().Format(time.RFC3339)
		}
	}
	if w.Held != "" {
		text += ": " + w.Held
	}
	if w.Restarts > 0 {
		text += fmt.Sprintf(", started again %d times", w.Restarts)
	}
	return text
}

// recorded returns the record as one line.
func (l *Live) recorded() string {
	r := l.Record
	if r == nil {
		return "none"
	}
	text := r.Decision + " (" + r.Reason + ")"
	if r.Backend != "" {
		text += " by " + r.Backend
	}
	text += ", " + r.Time.UTC().Format(time.RFC3339) + ", of network namespace " + r.NetNS
	if r.Detail != "" {
		text += "; " + r.Detail
	}
	for _, skipped := range r.Skipped {
		text += "; left out: " + skipped
	}
	return text
}

// compared returns the result of the comparison of rules as one line.
func (l *Live) compared() string {
	r := l.Rules
	switch {
	case l.Record == nil, l.Record.Decision == record.Untouched:
		return "none of ours are known"
	case r.Looked && r.OK:
		return "as they should be, says CHECK"
	case r.Looked:
		return "not as they should be, says CHECK"
	case r.Change != "":
		return "not looked at: " + r.Detail + "; the chart's value " + r.Change + " changes that"
	}
	return "not looked at: " + r.Detail
}

// text returns the webhook as one line.
func (w Webhook) text() string {
	name := w.Configuration + ", " + w.Name
	switch its := w.Injector; {
	case w.Selects && its != nil && its.Injects:
		return name + ": selects it, and the injector injects it: " + its.Why
	case w.Selects && its != nil:
		return name + ": selects it, and the injector leaves it out: " + its.Why
	case w.Selects:
		return name + ": selects it"
	}
	return name + ": " + w.Why
}

// writeEvents writes the last Events, or all of them if wide.
func (l *Live) writeEvents(t *output.Text) {
	events := l.Events
	if hidden := len(events) - fewEvents; hidden > 0 && !t.Wide {
		events = events[hidden:]
	}
	if len(events) == 0 {
		return
	}
	t.WriteByte('\n')
	rows := [][]string{{"EVENT", "LAST", "SAYS"}}
	for _, e := range events {
		name := e.Reason
		if e.isWarning() {
			name = "! " + name
		}
		if e.Count > 1 {
			name += fmt.Sprintf(" x%d", e.Count)
		}
		rows = append(rows, []string{name, e.Time.Format(time.RFC3339), e.Message})
	}
	t.Columns(rows)
	if hidden := len(l.Events) - len(events); hidden > 0 {
		t.Below("%d earlier Events; see them with -o wide.", hidden)
	}
}
