package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/flows/report"
)

// said has the logs of a node's pods: the mesh pod, the pod outside the mesh, and the peer of both.
type said struct {
	mesh, plain, peer string
	istio             bool // the sidecar is Istio's
}

// key identifies a flow.
type key struct{ flow, family string }

// around says why a flow that must not be possible is not well.
const around = "it has reached the peer around the sidecar"

func keyOf(r report.Result) key { return key{r.Flow, r.Family} }

// judge judges each flow of the mesh pod. The same calls of the pod outside the mesh are the control. An attempt to
// bypass the sidecar that is not answered proves nothing if it is not answered there either. A leak can only be seen if
// the peer has seen the pod outside the mesh.
func (n *Node) judge(tool string, s said) {
	control, reached := map[key]report.Result{}, report.Callers(s.peer)
	for _, r := range report.Parse(s.plain) {
		control[keyOf(r)] = r
	}
	made, captured := map[key]bool{}, map[string]bool{} // by family
	status := tool + " status says what the agent of the node finds"
	for _, r := range report.Parse(s.mesh) {
		made[keyOf(r)] = true
		if r.Flow == report.Outbound && r.Want != report.Peer {
			captured[r.Family] = true
		}
		f := Flow{Flow: r.Flow, Family: r.Family, To: r.To, Want: r.Want, Got: r.Got, Error: r.Error}
		f.Verdict, f.Why = judgeOne(r, control[controlOf(r)], reached[r.Caller(meshName)])
		f.unmade = !r.IsEscape() && r.Unmade != ""
		n.Flows = append(n.Flows, f)
	}
	slices.SortFunc(n.Flows, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(rank(a.Flow), rank(b.Flow)), cmp.Compare(a.Flow, b.Flow), cmp.Compare(a.Family, b.Family))
	})
	for _, f := range n.Flows {
		if f.Verdict == NotWell || f.Verdict == NotProven && !f.isEscape() && !f.unmade {
			next := status
			if f.Flow == report.MTLS {
				next = "outbound and inbound say whether the rules are there; the rest is Istio's: istioctl proxy-status, the " +
					"log of istiod"
			}
			if f.Why == around {
				next = "start no pods of the mesh there (kubectl cordon " + n.Name + "), and report it; " + status
			}
			n.find(f.Verdict, fmt.Sprintf("%s, %s, to %s: %s", f.Flow, f.Family, f.To, f.Why), next)
		}
	}
	n.sealed = slices.Contains(strings.Split(s.peer, "\n"), report.Sealed)
	n.Control = len(control) > 0
	missing := 0
	for _, k := range sortedKeys(control) {
		r := control[k]
		if k.flow == report.Outbound && (!r.Well || !reached[r.Caller(plainName)]) {
			n.Control = false
			n.find(NotProven, fmt.Sprintf("the control, %s: the peer has not seen the pod outside the mesh: %s", k.family,
				gotOf(r)), "see what keeps pods of the node from each other, such as a NetworkPolicy for all namespaces")
		}
		if !made[k] && (!strings.HasPrefix(k.flow, report.Escape) || captured[k.family]) {
			missing++
		}
	}
	if s.istio && len(control) > 0 && !slices.ContainsFunc(n.Flows, func(f Flow) bool { return f.Flow == report.MTLS }) {
		missing++
	}
	switch {
	case len(control) == 0:
		n.find(NotProven, "the control says nothing: "+lastLine(s.plain), status)
	case missing > 0:
		n.find(NotProven, fmt.Sprintf("%d of the flows are missing in what the pod of the mesh says: %s", missing,
			lastLine(s.mesh)), status)
	}
}

func sortedKeys(control map[key]report.Result) []key {
	var all []key
	for k := range control {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.flow, b.flow), cmp.Compare(a.family, b.family))
	})
	return all
}

// judgeOne returns the verdict about a flow, and why it is not well. leaked says that it has reached the peer.
func judgeOne(r, control report.Result, leaked bool) (Verdict, string) {
	switch escape := r.IsEscape(); {
	case !escape && r.Unmade != "":
		return NotProven, r.Unmade
	case leaked && (escape || r.Want != report.Peer), escape && !r.Well:
		return NotWell, around
	case isHeld(r) && !r.Well:
		return NotWell, gotOf(r) + " without the sidecar, which has to keep that from it"
	case isHeld(r) && !control.Well:
		return NotProven, "nor does it work outside the mesh: something else stops it"
	case !escape && r.Well:
		return Well, ""
	case r.Flow == report.MTLS:
		return NotWell, r.Error
	case !escape && r.Got == "" && control.Flow != "" && !control.Well:
		return NotProven, "nor does it work outside the mesh: " + gotOf(control)
	case !escape:
		return NotWell, gotOf(r) + ", and " + r.Want + " has to"
	case r.Unmade != "":
		return NotProven, "it could not be made: " + r.Unmade
	case !r.NoControl && control.Got != report.Peer:
		return NotProven, "nor does it get through outside the mesh: something else stops it"
	}
	return Well, ""
}

// isHeld reports whether Istio's sidecar must not let the flow pass.
func isHeld(r report.Result) bool {
	return r.Flow == report.HeldOutbound || r.Flow == report.HeldInbound
}

// controlOf returns the key of the control's flow that proves a flow possible.
func controlOf(r report.Result) key {
	k := keyOf(r)
	switch r.Flow {
	case report.HeldOutbound:
		k.flow = report.Outbound
	case report.HeldInbound:
		k.flow = report.Inbound
	}
	return k
}

// gotOf returns who has answered.
func gotOf(r report.Result) string {
	if r.Got != "" {
		return r.Got + " answers"
	}
	return "nobody answers (" + r.Error + ")"
}

func (f Flow) isEscape() bool { return strings.HasPrefix(f.Flow, report.Escape) }

// kinds are the kinds of flows in the order of the output, with their meaning.
var kinds = []struct{ flow, means string }{
	{report.Outbound, "what the app calls goes to its sidecar"},
	{report.Inbound, "who calls the app comes to its sidecar first"},
	{report.DNS, "the sidecar answers the app's DNS queries"},
	{report.DNSOverTCP, "the same for DNS queries by TCP"},
	{report.ExcludedOutbound, "a port that the pod excludes is called directly"},
	{report.ExcludedInbound, "a port that the pod excludes is reached directly"},
	{report.ProxyOutbound, "what the sidecar calls is not redirected again"},
	{report.ProxyInbound, "the sidecar's calls of its own pod come in as from outside"},
	{report.HeldOutbound, "the sidecar lets nothing out that the mesh does not allow"},
	{report.HeldInbound, "the sidecar lets nothing in without mTLS where the mesh demands it"},
	{report.MTLS, "one pod calls another, whose sidecar knows its certificate"},
	{report.Escape, "no attempt to get around the sidecar gets through"},
}

// rank returns the place of a flow in that order.
func rank(flow string) int {
	for i, k := range kinds {
		if flow == k.flow || k.flow == report.Escape && strings.HasPrefix(flow, k.flow) {
			return i
		}
	}
	return len(kinds)
}
