package trace

import (
	"fmt"

	"github.com/istio-pod-network/controller/agent/ctl/explain"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
)

// List is the command's output.
type List struct {
	output.Head `json:",inline"`
	// Operator is where the operator's settings come from.
	Operator string `json:"operator"`
	Items    []Item `json:"items"`
	// NotLookedAt are objects in the files without a known pod, unknown fields, and what could not be asked.
	NotLookedAt []string `json:"notLookedAt,omitempty"`
}

// Item is the output about one pod.
type Item struct {
	Object    string          `json:"object"` // its kind: Pod, or the kind with its template
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Source    string          `json:"source,omitempty"` // the file that it was read from
	Verdict   explain.Verdict `json:"verdict"`
	Reason    string          `json:"reason,omitempty"`
	Meaning   string          `json:"meaning,omitempty"`
	Error     string          `json:"error,omitempty"` // why the pod does not start
	Next      string          `json:"next,omitempty"`  // what to do about that, or if something else is intended
	// Assumed are assumptions that were made.
	Assumed []string `json:"assumed,omitempty"`
	// Ways are the way of the packet, then that of the packet that the sidecar sends on.
	Ways []Way `json:"ways"`
	// Kernel is the kernel's report about the first way, if it was asked.
	Kernel *Kernel `json:"kernel,omitempty"`

	ways        []trace.Way
	hostNetwork bool // it has the node's network, where the plugin writes no rules
}

// Way is a packet's way.
type Way struct {
	Sender   string        `json:"sender"`
	Protocol string        `json:"protocol"`
	From     string        `json:"from"` // source address
	To       string        `json:"to"`   // destination
	Steps    []Step        `json:"steps"`
	Landed   trace.Landing `json:"landed"`
	Where    string        `json:"where"`
	At       string        `json:"at"` // the address at which it is delivered
	// OriginalDestination is the address that the sidecar sees (SO_ORIGINAL_DST).
	OriginalDestination string `json:"originalDestination,omitempty"`
	Because             string `json:"because"`
}

// Step is a step of a way.
type Step struct {
	Hook    string `json:"hook,omitempty"`
	Chain   string `json:"chain,omitempty"`
	Rule    int    `json:"rule,omitempty"` // its number in the chain
	Match   string `json:"match,omitempty"`
	Why     string `json:"why,omitempty"`
	Missed  string `json:"missed,omitempty"` // why the rule does not match the packet
	Decides bool   `json:"decides,omitempty"`
}

func wayOf(w trace.Way) Way {
	way := Way{Sender: string(w.Sender), Protocol: w.Packet.Proto.String(), From: w.Packet.Source.Addr().String(),
		To: w.Packet.Dest.String(), Steps: []Step{}, Landed: w.Landed, Where: w.Where(), At: w.Dest.String(),
		Because: w.Because()}
	if w.Landed.Listener() && w.Packet.Proto == redirect.TCP {
		way.OriginalDestination = w.Original.String()
	}
	for _, s := range w.Steps {
		way.Steps = append(way.Steps, Step{Hook: string(s.Hook), Chain: s.Name(), Rule: s.Rule, Match: s.Text(), Why: s.Why,
			Missed: s.Missed, Decides: s.Decides})
	}
	return way
}

// lands reports whether the packet is delivered. It returns true for a pod with the node's network, which has no rules.
func (i Item) lands() bool {
	return i.hostNetwork || len(i.ways) > 0 && i.ways[0].Landed != trace.Dropped
}

// svg returns the picture as an SVG document.
func (i Item) svg() string {
	title := "A packet of " + i.Namespace + "/" + i.Name
	switch {
	case i.hostNetwork:
		title = fmt.Sprintf("%s/%s has the network of its node (hostNetwork)", i.Namespace, i.Name)
	case len(i.ways) > 0:
		title = fmt.Sprintf("%s/%s: %s", i.Namespace, i.Name, i.ways[0].Title())
	}
	return output.Printable(trace.SVG(title, i.ways...))
}

// write writes the list as text.
func (l List) write(t *output.Text, picture bool) {
	for _, item := range l.Items {
		item.write(t, picture)
	}
	t.Line(output.Plain, "Operator's settings: %s.", l.Operator)
	for _, object := range l.NotLookedAt {
		t.Line(output.Plain, "Not looked at: %s.", object)
	}
}

func (i Item) write(t *output.Text, picture bool) {
	t.Line(output.Bold, "%s %s/%s", i.Object, i.Namespace, i.Name)
	if i.Verdict == explain.Refused {
		t.Line(output.Red, "The pod does not start: %s", i.Error)
		t.Item("->", "%s", i.Next)
		t.WriteByte('\n')
		return
	}
	if i.hostNetwork {
		t.Line(output.Yellow, "The pod has no network to walk through (%s): %s", i.Reason, i.Meaning)
		t.Item("->", "Its packets go as those of its node do. %s", i.Next)
		t.WriteByte('\n')
		return
	}
	if i.Verdict != explain.Redirected {
		t.Line(output.Yellow, "The pod has no rules (%s): %s", i.Reason, i.Meaning)
		if i.Next != "" {
			t.Item("->", "%s", i.Next)
		}
	}
	for _, assumed := range i.Assumed {
		t.Item("?", "Assumed: %s.", assumed)
	}
	t.WriteByte('\n')
	shown := i.ways
	if !t.Wide {
		shown = shown[:1]
	}
	if picture {
		t.Drawn(trace.Picture(i.ways...) + "\n")
		t.Drawn(i.ways[0].Summary() + "\n")
	} else {
		for _, way := range shown {
			t.Drawn(way.Table(t.Wide) + "\n")
		}
	}
	if i.Kernel != nil {
		i.Kernel.write(t)
	}
}
