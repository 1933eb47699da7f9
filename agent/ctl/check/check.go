// Package check reports whether a cluster has what istio-pod-network needs, before its installation and after it.
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

// Verdict is the result of a check.
type Verdict = output.Verdict

// Values of Verdict. A warning is worth knowing, but may be intended. NotLookedAt counts neither as well nor as not
// well.
const (
	Well        = output.Well
	Warning     = output.Warning
	NotWell     = output.NotWell
	NotLookedAt = output.NotLookedAt
)

// Check has all results about a cluster.
type Check struct {
	output.Head `json:",inline"`
	Before      bool            `json:"before"` // before the installation: agents and policies are not checked
	Summary     Summary         `json:"summary"`
	Items       []Item          `json:"items"`
	group       string          // of the next items
	said        map[string]bool // names of the primaries that items are about
}

// Summary counts items by verdict.
type Summary struct {
	Well        int `json:"well"`
	Warnings    int `json:"warnings"`
	NotWell     int `json:"notWell"`
	NotLookedAt int `json:"notLookedAt"`
}

// Item is one result.
type Item struct {
	Group string `json:"group"`
	Check string `json:"check"`          // a fixed name
	Node  string `json:"node,omitempty"` // if it is about one node
	// Nodes are the nodes, if it is about several.
	Nodes   []string `json:"nodes,omitempty"`
	Verdict Verdict  `json:"verdict"`
	What    string   `json:"what"`
	Next    string   `json:"next,omitempty"` // what to do; set for Warning and NotWell
	// MissingRight is the right without which this could not be looked at.
	MissingRight string `json:"missingRight,omitempty"`
	failed       bool   // an error prevented the check
}

// isUnasked reports whether the check failed. A check that is disabled by configuration has not failed.
func (i Item) isUnasked() bool { return i.failed || i.MissingRight != "" }

// Source is the cluster that is checked.
type Source struct {
	status.Source
	Core      typedcore.CoreV1Interface
	Apps      typedapps.AppsV1Interface
	Admission typedadmission.AdmissionregistrationV1Interface
	Discovery discovery.DiscoveryInterfaceWithContext
	Metadata  metadata.Interface
	// Clock returns the API server's clock, from its answers.
	Clock func() (clock cluster.Clock, known bool)
}

// usual is the namespace in the documentation's commands.
const usual = "istio-pod-network-controller"

// Of checks a cluster. namespace is that of the agents, "" if it is to be found. before says that nothing is installed
// yet. An error means that the cluster does not answer.
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

// add adds an item in the present group.
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

// unlooked adds an item about what could not be looked at. right is the right that it needs. It is reported as missing
// only if the API server refused it.
func (c *Check) unlooked(check, what, right string, err error) {
	item := Item{Check: check, Verdict: NotLookedAt, What: what + ": " + err.Error(), failed: true}
	if apierrors.IsForbidden(err) {
		item.What, item.MissingRight = what+": the right to "+right+" is missing", right
	}
	c.add(item)
}

// count computes the summary.
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

// What could not be asked: nothing was answered, or not everything.
var (
	errNothing = errors.New("nothing could be looked at")
	errSome    = errors.New("not all could be looked at; each ? says why")
)

// counted returns a number of nodes as text.
func counted(nodes int) string {
	if nodes == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", nodes)
}

// shownNames is the largest number of names in a line.
const shownNames = 5

// some joins the first shownNames names, sorted, and counts the others.
func some(names []string) string {
	names = slices.Sorted(slices.Values(names))
	if more := len(names) - shownNames; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shownNames], ", "), more)
	}
	return strings.Join(names, ", ")
}
