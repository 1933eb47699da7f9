package trace

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/istio-pod-network/controller/internal/columns"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Width is how many columns a table or a picture takes at most.
const Width = 100

// The columns of a table: a mark, the number, hook, chain, rule; what is left is for what happens.
const (
	rowFormat = "%1s%3s  %-10s  %-25s %3s  %s"
	textWidth = Width - 49
)

// Table returns the way as lines for a person: where each step is, the rule that takes the packet, and what it is for;
// at the end where it lands and why. With all, rules that do not take it are listed, too, each with the reason. The
// step that decides has a > before it.
func (way Way) Table(all bool) string {
	var out strings.Builder
	out.WriteString(strings.Join(wrap(way.Title(), Width), "\n") + "\n\n")
	line := func(cells ...any) { out.WriteString(strings.TrimRight(fmt.Sprintf(rowFormat, cells...), " ") + "\n") }
	line("", "#", "hook", "chain", "", "what happens")
	number := 0
	for i := 0; i < len(way.Steps); i++ {
		s := way.Steps[i]
		if s.Missed != "" && !all {
			n := way.skipped(i)
			if i += n - 1; !way.chainTaken(s) {
				number++
				line("", fmt.Sprint(number), s.Hook, s.Name(), "", fmt.Sprintf("none of its %s takes the packet", rulesText(n)))
			}
			continue
		}
		number++
		mark, rule := "", ""
		if s.Decides {
			mark = ">"
		}
		if s.Rule > 0 {
			rule = fmt.Sprint(s.Rule)
		}
		text := append(wrap(s.Why, textWidth), wrap(s.Text(), textWidth)...)
		if s.Missed != "" {
			text = append(wrap("not: "+s.Missed, textWidth), wrap(s.Text(), textWidth)...)
		}
		line(mark, fmt.Sprint(number), s.Hook, s.Name(), rule, text[0])
		for _, more := range text[1:] {
			line("", "", "", "", "", more)
		}
	}
	out.WriteString("\n" + way.Summary())
	return out.String()
}

func rulesText(n int) string {
	if n == 1 {
		return "1 rule"
	}
	return fmt.Sprint(n, " rules")
}

// skipped counts the steps from i on that are rules of the same chain which do not take the packet.
func (way Way) skipped(i int) (n int) {
	for _, s := range way.Steps[i:] {
		if s.Missed == "" || s.Chain != way.Steps[i].Chain || s.Hook != way.Steps[i].Hook || s.Kind != way.Steps[i].Kind {
			break
		}
		n++
	}
	return n
}

// chainTaken reports whether a rule of the step's chain takes the packet, in that hook.
func (way Way) chainTaken(s Step) bool {
	for _, other := range way.Steps {
		if other.Missed == "" && other.Rule > 0 && other.Chain == s.Chain && other.Kind == s.Kind && other.Hook == s.Hook {
			return true
		}
	}
	return false
}

// Name returns the chain as the backend calls it, with iptables behind its table.
func (s Step) Name() string {
	if s.Kind == "" || s.foreign {
		return s.Chain
	}
	if s.words {
		return string(s.Kind) + " " + s.Chain
	}
	return redirect.NFTName(s.Kind, s.Chain)
}

// Title says what is sent by whom.
func (way Way) Title() string {
	p := way.Packet
	text := fmt.Sprintf("%s from %s", protoText(p.Proto), way.sender())
	return text + " to " + addressText(p.Dest)
}

// sender says who sends the packet.
func (way Way) sender() string {
	p := way.Packet
	switch {
	case p.In != "":
		return fmt.Sprintf("outside, %s by %s", addressOnly(p.Source), p.In)
	case p.Owner == nil:
		return "the pod's kernel"
	}
	return fmt.Sprintf("%s (user %s, group %s)", way.Sender, p.Owner.UID, p.Owner.GID)
}

func addressOnly(a netip.AddrPort) string {
	if !a.Addr().IsValid() {
		return "somebody"
	}
	return a.Addr().String()
}

// Summary says where the packet lands, by which destination its receiver knows it, and why, in a line each.
func (way Way) Summary() string {
	var out strings.Builder
	row := func(what, text string) {
		for i, line := range wrap(text, Width-22) {
			if i > 0 {
				what = ""
			}
			fmt.Fprintf(&out, "%-20s  %s\n", what, line)
		}
	}
	row("lands", way.Where())
	switch {
	case way.Landed.Listener() && way.Packet.Proto == redirect.UDP:
		row("original destination", way.Original.String()+", which the listener cannot ask for")
	case way.Landed.Listener():
		row("original destination", way.Original.String())
	}
	row("because", way.Because())
	return out.String()
}

// Where says where the packet lands.
func (way Way) Where() string {
	switch way.Landed {
	case Dropped:
		return "nowhere: it is dropped"
	case Outside:
		return fmt.Sprintf("outside: it leaves by %s, to %s", way.Link, addressText(way.Dest))
	case InPod:
		return fmt.Sprintf("in the pod, at %s, with whoever listens there", addressText(way.Dest))
	}
	return fmt.Sprintf("at the sidecar's %s, %s", way.Landed, way.Dest)
}

// Because names the step that decides, and what it is for.
func (way Way) Because() string {
	for _, s := range way.Steps {
		if s.Decides {
			return fmt.Sprintf("%s, rule %d: %s", s.Name(), s.Rule, s.Why)
		}
	}
	return "no rule takes it"
}

// wrap breaks a text between words into lines of at most so many columns, if its words let it; no text is no line.
func wrap(text string, width int) (lines []string) {
	for _, word := range strings.Fields(text) {
		if last := len(lines) - 1; last >= 0 && columns.Of(lines[last])+1+columns.Of(word) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}
