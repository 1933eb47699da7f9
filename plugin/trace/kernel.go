package trace

import (
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Heard is what the kernel says that a rule did, or the end of a chain.
type Heard struct {
	report.Step
	// Number is the rule's in the rule set, as in Step; 0 for what is none of ours.
	Number int
	// Predicted says that the walk has it at the same place.
	Predicted bool
	// Ours says that it is a rule of our tables.
	Ours bool
}

// Comparison is what the kernel says of a packet, beside what was predicted.
type Comparison struct {
	Heard []Heard
	// Differs is the first thing in which they differ, "" if they agree.
	Differs string
}

// Compare holds what the kernel says of a packet against a way: each rule of ours that takes it, in its order, and
// where it ends. Rules of others are listed, and count by what they change for ours, or for the end.
func (r Rules) Compare(way Way, told report.Trace) (c Comparison) {
	var expected []Step
	for _, s := range way.Steps {
		if s.Rule > 0 && s.Missed == "" && !s.foreign {
			expected = append(expected, s)
		}
	}
	for _, s := range told.Steps {
		h := Heard{Step: s, Ours: s.Table == redirect.TableName && !strings.HasPrefix(s.Verdict, "policy "),
			Number: r.numberOf(s)}
		if h.Ours {
			for i, e := range expected {
				if h.Number == e.Rule && s.Chain == e.Name() && s.Family == e.family.String() {
					if i > 0 {
						c.differs("the kernel passes over %s, rule %d", expected[0].Name(), expected[0].Rule)
					}
					h.Predicted, expected = true, expected[i+1:]
					break
				}
			}
			if !h.Predicted {
				c.differs("%s takes it in the kernel, and not by the prediction", h.name())
			}
		}
		c.Heard = append(c.Heard, h)
	}
	if len(expected) > 0 {
		c.differs("the kernel does not come to %s, rule %d", expected[0].Name(), expected[0].Rule)
	}
	c.compareEnd(way, told.End)
	return c
}

func (c *Comparison) differs(format string, args ...any) {
	if c.Differs == "" {
		c.Differs = fmt.Sprintf(format, args...)
	}
}

func (h Heard) name() string {
	if h.Number > 0 {
		return fmt.Sprintf("%s, rule %d,", h.Chain, h.Number)
	}
	return "a rule of " + h.Chain + " that is not ours"
}

// compareEnd is about where the packet lands.
func (c *Comparison) compareEnd(way Way, end report.End) {
	where, to := report.Pod, way.Dest.String()
	switch way.Landed {
	case Outside:
		where = report.Outside
	case Dropped:
		where = report.Dropped
	}
	if where != end.Where {
		c.differs("in the kernel it ends %s, by the prediction %s", endText(end.Where), endText(where))
		return
	}
	if way.Taken {
		to = way.Packet.Dest.String()
	}
	if where != report.Dropped && to != end.To {
		c.differs("in the kernel it is for %s at the end, by the prediction for %s", end.To, to)
	}
}

func endText(where string) string {
	switch where {
	case report.Pod:
		return "in the pod"
	case report.Outside:
		return "outside the pod"
	}
	return "by being dropped"
}

// numberOf is the number of a rule of the rule set, by its place in the kernel's chain; 0 for another rule.
func (r Rules) numberOf(s report.Step) int {
	if s.Table != redirect.TableName || s.Rule == 0 {
		return 0
	}
	for _, t := range r.Tables {
		for _, c := range t.Chains {
			if t.Family.String() != s.Family || redirect.NFTName(t.Kind, c.Name) != s.Chain {
				continue
			}
			place := 0
			for i, rule := range c.Rules {
				if place += len(rule.Lines(t)); s.Rule <= place {
					return i + 1
				}
			}
		}
	}
	return 0
}
