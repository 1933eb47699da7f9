package explain

import (
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/excerpt"
)

// List is the command's output.
type List struct {
	output.Head `json:",inline"`
	// Operator is where the operator's settings come from.
	Operator string        `json:"operator"`
	Items    []Explanation `json:"items"`
	// NotLookedAt are objects in the files without a known pod, unknown fields, and what could not be read from a cluster.
	NotLookedAt []string `json:"notLookedAt,omitempty"`
}

// colours are the colours of verdicts.
var colours = map[Verdict]output.Colour{Redirected: output.Green, Untouched: output.Yellow, Refused: output.Red}

// write writes the list as text.
func (l List) write(t *output.Text, picture bool) {
	for _, e := range l.Items {
		e.write(t)
		if picture {
			e.draw(t)
		}
		t.WriteByte('\n')
	}
	t.Line(output.Plain, "Operator's settings: %s.", l.Operator)
	for _, object := range l.NotLookedAt {
		t.Line(output.Plain, "Not looked at: %s.", object)
	}
}

func (e Explanation) write(t *output.Text) {
	t.Line(output.Bold, "%s %s/%s", e.Object, e.Namespace, e.Name)
	headline := string(e.Verdict)
	if e.Reason != "" {
		headline += " (" + e.Reason + ")"
	}
	t.Line(colours[e.Verdict], "%s: %s", headline, e.why())
	for _, assumed := range e.Assumed {
		t.Item("?", "Assumed: %s.", assumed)
	}
	for _, warning := range e.Warnings {
		t.Item("!", "%s.", warning)
	}
	t.WriteByte('\n')
	rows := [][]string{{"QUESTION", "ANSWER", "FROM"}}
	for _, q := range e.Questions {
		rows = append(rows, []string{q.Question, q.Answer, q.from()})
	}
	t.Columns(rows)
	e.writeSettings(t)
	if e.Live != nil {
		e.Live.write(t)
	}
	if e.Next != "" {
		t.WriteByte('\n')
		t.Item("->", "%s", e.Next)
	}
}

// why returns the error, otherwise the meaning of the reason.
func (e Explanation) why() string {
	if e.Error != "" {
		return e.Error + "."
	}
	return e.Meaning
}

// writeSettings writes the settings of the pod and the operator; if wide, all settings.
func (e Explanation) writeSettings(t *output.Text) {
	rows := [][]string{{"SETTING", "FROM", "VALUE"}}
	for _, s := range e.Settings {
		if t.Wide || s.From.Kind != ofDefault {
			rows = append(rows, []string{s.Name, s.From.with(""), excerpt.Quote(fmt.Sprint(s.Value))})
		}
	}
	switch hidden := len(e.Settings) - len(rows) + 1; {
	case len(e.Settings) == 0:
		return
	case len(rows) > 1:
		t.WriteByte('\n')
		t.Columns(rows)
		fallthrough
	default:
		if hidden > 0 {
			t.Below("%d settings have their defaults; see them with -o wide.", hidden)
		}
	}
}

// from returns where the answer comes from.
func (q Question) from() string {
	if q.From == nil {
		return ""
	}
	return q.From.String()
}

// String returns the origin with its value.
func (o Origin) String() string {
	value := ""
	if o.Value != "" {
		value = "=" + excerpt.Quote(o.Value)
	}
	return o.with(value)
}

// with returns the origin with a text after its name.
func (o Origin) with(value string) string {
	text := strings.TrimSpace(o.Kind + " " + o.Name + value)
	switch {
	case o.Of != "" && o.Name != "":
		return text + " of " + o.Of
	case o.Of != "":
		return text + " " + o.Of
	}
	return text
}
