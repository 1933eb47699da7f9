package check

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/status"
	"github.com/istio-pod-network/controller/agent/ctl/version"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Names of the chart's objects.
const (
	daemonSet   = "istio-pod-network-agent"
	configMap   = cluster.SettingsMap
	replaceInit = "istio-pod-network-replace-init"
)

// release is the installed release.
type release struct {
	known     bool // its DaemonSet was found
	hidden    bool // its DaemonSet could not be read
	namespace string
	flags     map[string]string // of the agents
	// refuses says that no container may share the sidecar's user.
	refuses bool
}

// installation looks for the chart's objects.
func (c *Check) installation(ctx context.Context, from Source, namespace string) (r release) {
	r.namespace = namespace
	sets, err := from.DaemonSets(ctx, namespace)
	if err != nil {
		c.unlooked("daemonset", "the agents' DaemonSet, and with it the policies that it needs", "list daemonsets.apps"+
			in(namespace), err)
		r.hidden = true
		return r
	}
	where := []string{}
	for _, set := range sets {
		where = append(where, set.Namespace)
	}
	switch len(sets) {
	case 0:
		c.ill("daemonset", "there is no DaemonSet "+daemonSet+in(namespace), "install the chart (docs/cluster.md); before "+
			"that, check --pre says whether the cluster has what it needs")
		return r
	case 1:
	default:
		c.ill("daemonset", "there is more than one DaemonSet "+daemonSet+", in "+some(where)+": two agents on a node undo "+
			"each other's work", "uninstall all but one (docs/uninstalling.md)")
	}
	r.known, r.namespace, r.flags = true, sets[0].Namespace, flagsOf(sets[0])
	c.daemonSet(sets[0])
	config, err := from.Core.ConfigMaps(r.namespace).Get(ctx, configMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		c.ill("config", "there is no ConfigMap "+configMap+", which agents and plugin read", "helm upgrade, or apply the "+
			"manifests again")
	case err != nil:
		c.unlooked("config", "the plugin's settings", "get configmaps"+in(r.namespace), err)
	default:
		var entry struct {
			SharedProxyUser string `json:"sharedProxyUser"`
		}
		if err := json.Unmarshal([]byte(config.Data[cluster.SettingsKey]), &entry); err != nil {
			c.ill("config", "the ConfigMap "+configMap+" has no entry that can be read: "+err.Error(), "helm upgrade, or "+
				"apply the manifests again")
		} else {
			c.well("config", "the ConfigMap %s has the plugin's settings", configMap)
		}
		r.refuses = entry.SharedProxyUser == "refuse"
	}
	return r
}

// daemonSet checks whether all pods of the DaemonSet are ready.
func (c *Check) daemonSet(set appsv1.DaemonSet) {
	s, rollout := set.Status, status.RolloutOf(set)
	switch {
	case rollout != nil && rollout.Unobserved: // the numbers are old
		f := rollout.Finding()
		c.warn("daemonset", "the DaemonSet "+set.Name+": "+f.What, f.Next)
	case s.DesiredNumberScheduled == 0:
		c.ill("daemonset", "no node is to have an agent", "the values nodeSelector and affinity select none: compare them "+
			"with kubectl get nodes --show-labels")
	case s.NumberReady < s.DesiredNumberScheduled:
		c.ill("daemonset", fmt.Sprintf("%d of %d agents are ready", s.NumberReady, s.DesiredNumberScheduled),
			fmt.Sprintf("see the nodes below; pods that are missing altogether: kubectl -n %s describe daemonset %s",
				set.Namespace, set.Name))
	case rollout != nil:
		f := rollout.Finding()
		c.warn("daemonset", f.What, f.Next)
	default:
		c.well("daemonset", "%d of %d agents are ready, in namespace %s", s.NumberReady, s.DesiredNumberScheduled,
			set.Namespace)
	}
}

// flagsOf returns the agents' flags.
func flagsOf(set appsv1.DaemonSet) map[string]string {
	flags := map[string]string{}
	for _, container := range set.Spec.Template.Spec.Containers {
		for _, arg := range container.Args {
			name, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			flags[name] = value
		}
	}
	return flags
}

// in returns a text about a namespace.
func in(namespace string) string {
	if namespace == "" {
		return " in all namespaces"
	}
	return " in namespace " + namespace
}

// policy is one of the chart's admission policies.
type policy struct {
	name   string
	there  bool // it should exist
	risk   string
	value  string // the chart's value that renders it
	denies bool   // its binding denies requests
	agents bool   // it names the agents' account
}

// policies checks that the chart's admission policies exist and are bound.
func (c *Check) policies(ctx context.Context, from Source, r release, a api) {
	if !a.validating {
		return // this is reported already
	}
	for _, p := range []policy{
		{"istio-pod-network-marks", true, "whoever may edit a pod may write its marks, and who has an agent's token " +
			"those of all pods", "admissionPolicy.enabled=auto", true, true},
		{"istio-pod-network-shared-user", r.refuses, "an ephemeral container may run as the sidecar's user and bypass " +
			"the mesh", "sharedProxyUser=refuse", true, false},
		{"istio-pod-network-startup-taint", r.flags["startup-taint"] != "", "who has an agent's token may change every node",
			"startupTaint.enabled=true", true, true},
		{"istio-pod-network-repair", r.flags["repair"] == "delete", "who has an agent's token may delete every pod",
			"repair=delete", true, true},
	} {
		if p.there {
			c.validating(ctx, from, r, p)
		}
	}
	const copied = "istio-pod-network-copied-marks"
	if a.mutating != "" {
		c.mutating(ctx, from, a.mutating, copied, "marks that are copied into a new pod stay there, and mislead a person")
		return
	}
	c.validating(ctx, from, r, policy{copied, true, "nobody is warned of marks that are copied into a new pod",
		"admissionPolicy.enabled=auto", false, false})
}

// validating checks one ValidatingAdmissionPolicy and its binding.
func (c *Check) validating(ctx context.Context, from Source, r release, p policy) {
	check, next := "policy", fmt.Sprintf("helm upgrade with %s, or apply the manifests again", p.value)
	its, err := from.Admission.ValidatingAdmissionPolicies().Get(ctx, p.name, metav1.GetOptions{})
	if !c.found(check, "the ValidatingAdmissionPolicy "+p.name, p.risk, next,
		"get validatingadmissionpolicies."+admission, err) {
		return
	}
	binding, err := from.Admission.ValidatingAdmissionPolicyBindings().Get(ctx, p.name, metav1.GetOptions{})
	if !c.found(check, "the binding of the ValidatingAdmissionPolicy "+p.name, p.risk, next,
		"get validatingadmissionpolicybindings."+admission, err) {
		return
	}
	account := "system:serviceaccount:" + r.namespace + ":" + daemonSet
	switch {
	case binding.Spec.PolicyName != p.name:
		c.ill(check, fmt.Sprintf("the binding %s belongs to the policy %q: %s", p.name, binding.Spec.PolicyName, p.risk),
			next)
	case p.denies && !slices.Contains(binding.Spec.ValidationActions, admissionv1.Deny):
		c.ill(check, fmt.Sprintf("the binding %s does not refuse (validationActions %v): %s", p.name,
			binding.Spec.ValidationActions, p.risk), next)
	case p.agents && !names(its.Spec, account):
		c.ill(check, fmt.Sprintf("the policy %s is about the agents of another namespace, and not about %s: %s", p.name,
			account, p.risk), next)
	default:
		c.well(check, "the policy %s is there, and bound", p.name)
	}
}

// names reports whether a policy contains the name of an account.
func names(spec admissionv1.ValidatingAdmissionPolicySpec, account string) bool {
	quoted := func(expression string) bool { return strings.Contains(expression, "'"+account+"'") }
	return slices.ContainsFunc(spec.Variables, func(v admissionv1.Variable) bool { return quoted(v.Expression) }) ||
		slices.ContainsFunc(spec.MatchConditions, func(m admissionv1.MatchCondition) bool { return quoted(m.Expression) })
}

// mutating checks that a MutatingAdmissionPolicy and its binding exist. It checks no more, because their types differ
// between API versions.
func (c *Check) mutating(ctx context.Context, from Source, served, name, risk string) {
	const next = "helm upgrade with admissionPolicy.enabled=auto, or apply the manifests again"
	for _, kind := range []string{"mutatingadmissionpolicies", "mutatingadmissionpolicybindings"} {
		err := lookUp(ctx, from, served, kind, name)
		if !c.found("policy", "the MutatingAdmissionPolicy "+name+", or its binding", risk, next,
			"get "+kind+"."+admission, err) {
			return
		}
	}
	c.well("policy", "the policy %s is there, and bound", name)
}

// lookUp looks for an object in a version of the API of admission policies.
func lookUp(ctx context.Context, from Source, served, kind, name string) error {
	resource := schema.GroupVersionResource{Group: admission, Version: served, Resource: kind}
	_, err := from.Metadata.Resource(resource).Get(ctx, name, metav1.GetOptions{})
	return err
}

// found adds an item if something is missing or could not be looked at. Otherwise it returns true.
func (c *Check) found(check, what, risk, next, right string, err error) bool {
	switch {
	case apierrors.IsNotFound(err):
		c.ill(check, what+" is missing: "+risk, next)
	case err != nil:
		c.unlooked(check, what, right, err)
	}
	return err == nil
}

// agents adds what the agents say of their nodes, and returns that.
func (c *Check) agents(
	ctx context.Context, from Source, namespace, tool string, nodes []corev1.Node, r release,
) []status.Node {
	s, err := status.Of(ctx, from, namespace)
	if err != nil {
		c.unlooked("agents", "the agents", "list pods"+in(namespace), err)
		return nil
	}
	for _, n := range s.Items {
		c.agent(n)
	}
	for _, line := range s.Unchecked() {
		c.add(Item{Check: "rules", Verdict: NotLookedAt, What: line})
	}
	c.clocks(s.Items)
	c.versions(s, tool)
	c.taints(nodes, s.Items, r)
	return s.Items
}

// agent adds the state of a node.
func (c *Check) agent(n status.Node) {
	for _, f := range n.Findings {
		item := Item{Check: "agent", Node: n.Name, Verdict: NotWell, What: f.What, Next: f.Next}
		if n.Verdict == status.NotAsked {
			item.Verdict, item.Next, item.failed = NotLookedAt, "", true
			if namespace, _, _ := strings.Cut(n.Pod, "/"); apierrors.IsForbidden(n.Unasked) {
				item.MissingRight = "create pods/exec" + in(namespace)
				item.What = "its agent: the right to " + item.MissingRight + " is missing"
			}
		}
		c.add(item)
	}
	if n.Agent == nil {
		return
	}
	for _, f := range status.OtherMeshes(n.Agent.Installation.Plugins) {
		c.add(Item{Check: "other-meshes", Node: n.Name, Verdict: Warning, What: f.What, Next: f.Next})
	}
	if outside := n.Agent.Pods.Outside; len(outside) > 0 {
		c.add(Item{Check: "pods-outside", Node: n.Name, Verdict: Warning, What: "pods without rules that would have some " +
			"if they were made now: " + some(outside), Next: "make each again, if it is to be in the mesh: kubectl -n " +
			"NAMESPACE delete pod POD, or rollout restart of what makes it (docs/operation.md, Bring a running pod into " +
			"the mesh)"})
	}
	if older := n.Agent.Pods.Older; len(older) > 0 {
		c.add(Item{Check: "older-rules", Node: n.Name, Verdict: Warning, What: "pods with the rules of another release: " +
			some(older), Next: "they stay in force; for those of this release make the pods again, or name their " +
			"namespaces in the value renewRules, with repair=apply (docs/operation.md, Renew the rules of running pods)"})
	}
	if !n.Agent.Installation.Managed {
		c.add(Item{Check: "installation", Node: n.Name, Verdict: NotLookedAt, What: "the plugin and its place in the " +
			"network, which the agent leaves to somebody else (--no-install)"})
	}
	if n.Verdict != status.Well {
		return
	}
	what := "its agent is ready"
	if i := n.Agent.Installation; i.Managed {
		what += fmt.Sprintf("; the plugin is %s in %s", n.Agent.Plugin.Path, i.Into)
		if i.Chained != "" {
			what += " (" + i.Chained + ")"
		}
	}
	for _, check := range n.Agent.Checks {
		if check.Name == "backend" {
			what += "; " + check.Detail
		}
	}
	c.add(Item{Check: "agent", Node: n.Name, Verdict: Well, What: what})
}

// versions adds which versions do not fit together.
func (c *Check) versions(s status.Status, tool string) {
	v := version.Of(s, tool)
	if v.Summary.DoNot == 0 && v.Summary.Fit > 0 {
		c.well("versions", "agents and plugins of %s fit this tool, and each other", counted(v.Summary.Fit))
	}
	for _, n := range v.Items {
		if n.Verdict == version.DoesNot {
			for _, f := range n.Findings {
				c.add(Item{Check: "versions", Node: n.Name, Verdict: NotWell, What: f.What, Next: f.Next})
			}
		}
		if len(n.CannotAnswer) > 0 {
			c.add(Item{Check: "versions", Node: n.Name, Verdict: Warning, What: "its agent cannot answer " +
				strings.Join(n.CannotAnswer, ", "), Next: status.Upgrade})
		}
	}
	for _, what := range v.Incomparable {
		c.add(Item{Check: "versions", Verdict: NotLookedAt, What: what})
	}
}

// taints checks that the startup taint is removed from nodes with a ready agent.
func (c *Check) taints(nodes []corev1.Node, items []status.Node, r release) {
	key := r.flags["startup-taint"]
	switch {
	case nodes == nil || r.hidden:
		return
	case key == "":
		if names := tainted(nodes, usualTaint); len(names) > 0 {
			c.ill("startup-taint", some(names)+": the startup taint is there, and the agents are not told to take it away",
				"helm upgrade with startupTaint.enabled=true, or take it away (kubectl taint node NODE "+usualTaint+
					"-) and register nodes without it")
		}
		return
	}
	with := tainted(nodes, key)
	if len(with) == 0 {
		c.well("startup-taint", "no node has the startup taint any more")
	}
	for _, n := range items {
		switch {
		case !slices.Contains(with, n.Name):
		case n.Agent != nil && n.Agent.Ready:
			namespace, pod, _ := strings.Cut(n.Pod, "/")
			c.add(Item{Check: "startup-taint", Node: n.Name, Verdict: NotWell, What: "its agent is ready, and the startup " +
				"taint " +
				key + " is still there", Next: fmt.Sprintf("the agent says in its log why: kubectl -n %s logs %s", namespace, pod)})
		default:
			c.add(Item{Check: "startup-taint", Node: n.Name, Verdict: Warning, What: "the startup taint " + key + " is " +
				"still there",
				Next: "the agent takes it away once it is ready"})
		}
	}
}
