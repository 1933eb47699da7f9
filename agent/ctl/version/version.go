// Package version reports the releases of the operator's tool, the agents and their plugins, and which of them do not
// fit together.
package version

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/status"
	"github.com/istio-pod-network/controller/agent/inspect"
	"k8s.io/apimachinery/pkg/util/version"
)

// Verdict says whether a node's programs fit together with the others.
type Verdict = output.Verdict

// Values of Verdict.
const (
	Fits     = output.Fits
	DoesNot  = output.DoesNotFit
	NotAsked = output.NotAsked
)

// Version has the versions of all programs.
type Version struct {
	output.Head `json:",inline"`
	Tool        string   `json:"tool"`
	Summary     *Summary `json:"summary,omitempty"` // absent, like Items, if no cluster was asked
	Items       []Node   `json:"items,omitempty"`
	// NotLookedAt is what could not be looked at, each with its reason.
	NotLookedAt []string `json:"notLookedAt,omitempty"`
	// Incomparable are those of NotLookedAt that are about versions.
	Incomparable []string `json:"-"`
	unknown      error    // why something is unknown
}

// Summary counts nodes by verdict.
type Summary struct {
	Fit      int `json:"fit"`
	DoNot    int `json:"doNotFit"`
	NotAsked int `json:"notAsked"`
}

// Node has the versions on one node.
type Node struct {
	Name    string          `json:"name"`
	Verdict Verdict         `json:"verdict"`
	Pod     string          `json:"pod,omitempty"`     // of the agent, NAMESPACE/NAME
	Release string          `json:"release,omitempty"` // of the agent's pod, from the chart's label
	Agent   string          `json:"agent,omitempty"`   // as the agent reports it
	Plugin  *inspect.Plugin `json:"plugin,omitempty"`
	// CannotAnswer are questions of this tool that the agent does not know, each with what needs the answer.
	CannotAnswer []string         `json:"cannotAnswer,omitempty"`
	Findings     []output.Finding `json:"findings,omitempty"`
}

// most is the largest difference of minor versions with which two programs work together.
const most = 1

// Of reads the versions from the agents' answers.
func Of(s status.Status, tool string) Version {
	v := Version{Head: output.HeadOf("Version"), Tool: tool, Summary: &Summary{}, Items: []Node{}}
	incomparable := map[string]bool{}
	newest, where := newestOf(s.Items)
	for _, item := range s.Items {
		n := Node{Name: item.Name, Verdict: Fits, Pod: item.Pod, Release: item.Release,
			CannotAnswer: item.Unanswered()}
		its := item.Release
		if item.Agent != nil {
			n.Agent, n.Plugin, its = item.Agent.Agent, &item.Agent.Plugin, item.Agent.Agent
			n.judgePlugin(item.Agent.Installation.Managed)
			if !item.Agent.Installation.Managed {
				v.NotLookedAt = append(v.NotLookedAt, "the plugin on "+n.Name+", which the agent leaves to somebody else "+
					"(--no-install)")
			}
		}
		if !n.judgeSkew(its, tool, "this tool", "") {
			n.judgeSkew(its, newest, "the newest agent", where)
		}
		for _, other := range []string{tool, newest} {
			if _, known := apart(its, other); !known && its != "" && its != other {
				incomparable[fmt.Sprintf("how far %s and %s are apart, for a version that is no release says nothing of that",
					min(its, other), max(its, other))] = true
			}
		}
		if n.Verdict == Fits && (item.Agent == nil && !item.CannotAnswer() || its == "") {
			n.Verdict = NotAsked
			n.Findings = append(n.Findings, item.Findings...)
		}
		v.Items = append(v.Items, n)
	}
	v.Incomparable = slices.Sorted(maps.Keys(incomparable))
	v.NotLookedAt = slices.Concat(s.Unlisted, v.NotLookedAt, v.Incomparable)
	for _, n := range v.Items {
		switch n.Verdict {
		case Fits:
			v.Summary.Fit++
		case DoesNot:
			v.Summary.DoNot++
		default:
			v.Summary.NotAsked++
		}
	}
	v.unknown = s.Unknown(v.Summary.NotAsked)
	return v
}

// newestOf returns the newest release of an agent and its node, "" if no agent is a release.
func newestOf(items []status.Node) (newest, where string) {
	var most *version.Version
	for _, item := range items {
		its := item.Release
		if item.Agent != nil {
			its = item.Agent.Agent
		}
		if v := releaseOf(its); v != nil && (most == nil || most.LessThan(v)) {
			most, newest, where = v, its, " on "+item.Name
		}
	}
	return newest, where
}

// apart returns by how many minor versions a is newer than b. known is false if one of them is no release. For
// different major versions the result is larger than most.
func apart(a, b string) (minors int, known bool) {
	x, y := releaseOf(a), releaseOf(b)
	if x == nil || y == nil {
		return 0, false
	}
	const another = 1000
	return (int(x.Major())-int(y.Major()))*another + int(x.Minor()) - int(y.Minor()), true
}

// releaseOf parses the version of a release. It returns nil for anything else. Without a tag, the Go command stamps a
// program v0.0.0-DATE-COMMIT.
func releaseOf(text string) *version.Version {
	v, err := version.ParseSemantic(text)
	if err != nil || v.Major() == 0 && v.Minor() == 0 && v.Patch() == 0 {
		return nil
	}
	return v
}

// judgeSkew compares an agent's version with another program's, and reports whether they do not fit.
func (n *Node) judgeSkew(its, other, name, where string) bool {
	minors, known := apart(its, other)
	if !known || minors <= most && minors >= -most {
		return false
	}
	what := fmt.Sprintf("its agent is of %s, and %s%s of %s: more than one minor version apart", its, name, where, other)
	next := "upgrade the agents, one minor version after the other: helm upgrade (docs/operation.md, Upgrade)"
	if minors > 0 {
		next = "use the tool of the agents' release"
	}
	n.find(what, next)
	return true
}

// judgePlugin checks the plugin if the agent manages it: the two are built together.
func (n *Node) judgePlugin(managed bool) {
	namespace, pod, _ := strings.Cut(n.Pod, "/")
	logs := fmt.Sprintf("the agent puts its own there, and says in its log why it has not: kubectl -n %s logs %s",
		namespace, pod)
	switch {
	case !managed || n.Plugin.Version == n.Agent:
	case n.Plugin.SHA256 == "":
		n.find("the node has no plugin", logs)
	case n.Plugin.Version == "":
		n.find(fmt.Sprintf("the plugin %s is not that of the agent: SHA-256 %s", n.Plugin.Path, n.Plugin.SHA256), logs)
	default:
		n.find(fmt.Sprintf("the plugin is of %s, and the agent of %s", n.Plugin.Version, n.Agent), logs)
	}
}

// find adds a finding that something does not fit.
func (n *Node) find(what, next string) {
	n.Verdict = DoesNot
	n.Findings = append(n.Findings, output.Finding{What: what, Next: next})
}
