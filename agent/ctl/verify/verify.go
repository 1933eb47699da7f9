// Package verify proves an installation in the user's own cluster. In a temporary namespace it creates on each node a
// mesh pod with a stand-in of its sidecar, a peer that it calls, and a pod outside the mesh as the control. The program
// istio-pod-network-flows makes real connections in these pods and prints the results, which are judged here.
package verify

import (
	"context"
	"slices"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Namespace is the temporary namespace.
const Namespace = "istio-pod-network-verify"

// space describes that namespace.
var space = temporary.Kind{Name: Namespace, Level: "restricted", Key: "verify", Cleanup: "verify --cleanup"}

// Verdict is the result about a node or a flow.
type Verdict = output.Verdict

// Values of Verdict.
const (
	Well      = output.Well
	NotWell   = output.NotWell
	NotProven = output.NotProven
)

// Verification has the results about a cluster.
type Verification struct {
	output.Head `json:",inline"`
	Image       string `json:"image"` // of the pods
	// Error is why the run failed as a whole. There are no results about nodes then.
	Error string `json:"error,omitempty"`
	// Istio says how the mesh pods are injected; absent if they have a stand-in of the sidecar.
	Istio   *Injected `json:"istio,omitempty"`
	Summary Summary   `json:"summary"`
	Items   []Node    `json:"items"`
	// NotLookedAt is what could not be looked at, each with its reason.
	NotLookedAt []string `json:"notLookedAt,omitempty"`
}

// Summary counts nodes by verdict.
type Summary struct {
	Well      int `json:"well"`
	NotWell   int `json:"notWell"`
	NotProven int `json:"notProven"`
}

// Node has the results about one node.
type Node struct {
	Name     string           `json:"name"`
	Verdict  Verdict          `json:"verdict"`
	Findings []output.Finding `json:"findings,omitempty"` // what is not well, or not proven
	Control  bool             `json:"control"`            // the peer has seen the pod outside the mesh: it sees leaks
	Flows    []Flow           `json:"flows,omitempty"`    // of the mesh pod

	sealed bool // its pods recognise each other by a secret
}

// Flow is the result of a flow of the mesh pod.
type Flow struct {
	Flow    string  `json:"flow"`
	Family  string  `json:"family"`
	To      string  `json:"to"`
	Want    string  `json:"want"` // who must answer; for an attempt, who must not
	Got     string  `json:"got,omitempty"`
	Error   string  `json:"error,omitempty"`
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why,omitempty"` // why it is not well, or not proven

	unmade bool // it could not be made, which says nothing about the node
}

// find adds a finding.
func (n *Node) find(verdict Verdict, what, next string) {
	n.Verdict = n.Verdict.With(verdict)
	n.Findings = append(n.Findings, output.Finding{What: what, Next: next})
}

// verdict returns the verdict about the cluster.
func (v Verification) verdict() Verdict {
	switch {
	case v.Summary.NotWell > 0:
		return NotWell
	case v.Summary.NotProven > 0 || len(v.Items) == 0:
		return NotProven
	}
	return Well
}

// count computes the summary.
func (v *Verification) count() {
	for _, n := range v.Items {
		switch n.Verdict {
		case Well:
			v.Summary.Well++
		case NotWell:
			v.Summary.NotWell++
		default:
			v.Summary.NotProven++
		}
	}
}

// verifier verifies nodes.
type verifier struct {
	core     typedcore.CoreV1Interface
	kit      kit
	agents   string        // their namespace
	parallel int           // nodes at the same time
	timeout  time.Duration // for each node
	pace     temporary.Pace
	logs     logs
	progress *temporary.Progress
	tool     string // the user's name for this program
	mesh     *mesh  // nil if pods have a stand-in of the sidecar
}

// all verifies nodes in a temporary namespace, which is gone when it returns.
func (v *verifier) all(ctx context.Context, nodes []string) (result Verification, err error) {
	result = Verification{Head: output.HeadOf("Verification"), Image: v.kit.image(), Items: make([]Node, len(nodes))}
	kind := space
	if v.mesh != nil {
		result.Istio, kind = &v.mesh.Injected, v.mesh.space()
	}
	s := temporary.NewSpace(kind, v.core, v.pace, v.tool)
	err = s.In(ctx, v.timeout, v.progress, func(ctx context.Context) error {
		if err := v.outfit(ctx, s, nodes[0], &result); err != nil {
			return err
		}
		temporary.Each(nodes, v.parallel, func(i int, node string) {
			result.Items[i] = v.prove(ctx, i, node)
			v.progress.Done(node, string(result.Items[i].Verdict))
		})
		result.count()
		if slices.ContainsFunc(result.Items, func(n Node) bool { return len(n.Flows) > 0 && !n.sealed }) {
			result.NotLookedAt = append(result.NotLookedAt, "whether who answers is a pod of this run, and no other of its "+
				"name: the image is of a release whose pods do not know each other by a secret")
		}
		return nil
	})
	return result, err
}

// outfit creates what pods in the namespace need, within the time of one node, and adds what is missing.
func (v *verifier) outfit(ctx context.Context, s *temporary.Space, node string, result *Verification) error {
	ctx, cancel := context.WithTimeoutCause(ctx, v.timeout, temporary.Late(v.timeout))
	defer cancel()
	missing, err := s.Furnish(ctx, v.core, accountName, v.agents, v.kit.pod.Spec.ImagePullSecrets)
	if err == nil && v.kit.constraints != "" {
		err = v.awaitRange(ctx)
	}
	if err == nil && v.mesh != nil {
		var notes []string
		notes, err = v.prepare(ctx, node)
		missing = append(missing, notes...)
	}
	result.NotLookedAt = missing
	return err
}
