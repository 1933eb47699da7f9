// Package check says whether a cluster has what istio-pod-network needs, before it is installed and after.
package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	typedadmission "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	typedapps "k8s.io/client-go/kubernetes/typed/apps/v1"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
)

// Verdict is how something is.
type Verdict = output.Verdict

// The verdicts. A warning is worth knowing and may be meant; what was not looked at counts neither as well nor as ill.
const (
	Well        = output.Well
	Warning     = output.Warning
	NotWell     = output.NotWell
	NotLookedAt = output.NotLookedAt
)

// Check is what is said of a cluster.
type Check struct {
	output.Head `json:",inline"`
	Before      bool            `json:"before"` // the installation: agents and policies were not looked for
	Summary     Summary         `json:"summary"`
	Items       []Item          `json:"items"`
	group       string          // of the items that come
	said        map[string]bool // names of the primaries that items are about
}

// Summary counts items by verdict.
type Summary struct {
	Well        int `json:"well"`
	Warnings    int `json:"warnings"`
	NotWell     int `json:"notWell"`
	NotLookedAt int `json:"notLookedAt"`
}

// Item is one thing that was looked at.
type Item struct {
	Group string `json:"group"`
	Check string `json:"check"`          // by a name that does not change
	Node  string `json:"node,omitempty"` // where it is about one
	// Nodes are those that it is about where it is about several.
	Nodes   []string `json:"nodes,omitempty"`
	Verdict Verdict  `json:"verdict"`
	What    string   `json:"what"`
	Next    string   `json:"next,omitempty"` // what to do; with each warning and all that is not well
	// MissingRight is the right without which it was not looked at.
	MissingRight string `json:"missingRight,omitempty"`
	failed       bool   // it was not looked at because of an error
}

// isUnasked reports whether it could not be asked, other than what is not looked at by configuration.
func (i Item) isUnasked() bool { return i.failed || i.MissingRight != "" }

// Source is the cluster that is asked.
type Source struct {
	status.Source
	Core      typedcore.CoreV1Interface
	Apps      typedapps.AppsV1Interface
	Admission typedadmission.AdmissionregistrationV1Interface
	Discovery discovery.DiscoveryInterfaceWithContext
	Metadata  metadata.Interface
	// Clock is the API server's, by what it has answered.
	Clock func() (clock cluster.Clock, known bool)
}

// usual is the namespace that the documentation installs the chart in.
const usual = "istio-pod-network-controller"

// Of asks a cluster. namespace is that of the agents, "" for whichever it is; before says that they are still to be
// installed. An error says that the cluster does not answer.
func Of(ctx context.Context, from Source, namespace string, before bool, tool string) (Check, error) {
	c := Check{Head: output.HeadOf("Check"), Before: before, Items: []Item{}}
	c.group = "Kubernetes"
	api, err := c.api(ctx, from)
	if err != nil {
		return c, err
	}
	nodes := c.nodes(ctx, from)
	c.serverClock(from)
	if before {
		c.kubeletClocks(nodes)
	}
	installed := release{namespace: namespace}
	if !before {
		c.group = "Installation"
		installed = c.installation(ctx, from, namespace)
	}
	if installed.namespace == "" {
		installed.namespace = usual
	}
	c.group = "Installation"
	c.podSecurity(ctx, from, installed.namespace, !installed.known)
	if installed.known {
		c.policies(ctx, from, installed, api)
	}
	var agents []status.Node
	if installed.known || installed.hidden {
		c.group = "Agents"
		agents = c.agents(ctx, from, namespace, tool, nodes, installed)
	}
	if before {
		c.taintsBefore(nodes)
	}
	c.group = "Istio"
	c.istio(ctx, from, installed, api, before)
	c.group = "Other networks"
	c.networks(ctx, from, installed, api, agents, before)
	c.count()
	return c, ctx.Err()
}

// add notes an item of the group of now.
func (c *Check) add(item Item) {
	item.Group = c.group
	c.Items = append(c.Items, item)
}

func (c *Check) well(check, format string, args ...any) {
	c.add(Item{Check: check, Verdict: Well, What: fmt.Sprintf(format, args...)})
}

func (c *Check) warn(check, what, next string) {
	c.add(Item{Check: check, Verdict: Warning, What: what, Next: next})
}

func (c *Check) ill(check, what, next string) {
	c.add(Item{Check: check, Verdict: NotWell, What: what, Next: next})
}

// unlooked notes that something could not be looked at. right is what it needs; if that was not refused, it is not what
// is missing.
func (c *Check) unlooked(check, what, right string, err error) {
	item := Item{Check: check, Verdict: NotLookedAt, What: what + ": " + err.Error(), failed: true}
	if apierrors.IsForbidden(err) {
		item.What, item.MissingRight = what+": the right to "+right+" is missing", right
	}
	c.add(item)
}

// count sums up.
func (c *Check) count() {
	c.Summary = Summary{}
	for _, item := range c.Items {
		switch item.Verdict {
		case Well:
			c.Summary.Well++
		case Warning:
			c.Summary.Warnings++
		case NotWell:
			c.Summary.NotWell++
		default:
			c.Summary.NotLookedAt++
		}
	}
}

// What could not be asked: no question was answered, or some were not.
var (
	errNothing = errors.New("nothing could be looked at")
	errSome    = errors.New("not all could be looked at; each ? says why")
)

// counted is a number of nodes.
func counted(nodes int) string {
	if nodes == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", nodes)
}

// shownNames is how many names a line has.
const shownNames = 5

// some lists names, sorted.
func some(names []string) string {
	names = slices.Sorted(slices.Values(names))
	if more := len(names) - shownNames; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shownNames], ", "), more)
	}
	return strings.Join(names, ", ")
}
