package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// asker asks the agent for the facts of a pod.
type asker func(context.Context, string, facts.Request) (redirect.Pod, error)

// add decides, writes the rules and their record, and passes the previous result on. An ADD that returns an error has
// left nothing behind, but for one that renews.
func (p plugin) add(c *call, args *skel.CmdArgs) error {
	cfg, err := c.configure(args)
	if err != nil {
		return fail(types.ErrInvalidNetworkConfig, "reading the configuration", err)
	}
	result, err := cfg.result()
	if err != nil {
		return fail(types.ErrInvalidNetworkConfig, "reading the configuration", err)
	}
	pod, renew, err := c.podOf(cfg, args)
	if err != nil {
		return err
	}
	undo := func() error { return nil } // of what a running pod goes by
	if renew {
		err = p.renew(c, cfg, args)
	} else {
		undo, err = p.apply(c, cfg, args, pod)
	}
	if err != nil {
		return err
	}
	if _, err := p.stdout.Write(append(result, '\n')); err != nil {
		return takenBack(fail(types.ErrIOFailure, "printing the result", err), undo())
	}
	return nil
}

// podOf names the pod from CNI_ARGS and gives it the annotations of runtimeConfig.
func (c *call) podOf(cfg config, args *skel.CmdArgs) (pod redirect.Pod, renew bool, err error) {
	pod, renew, err = podOf(args.Args)
	if err != nil {
		return pod, renew, fail(types.ErrInvalidEnvironmentVariables, "reading the environment", err)
	}
	pod.Annotations = cfg.annotations
	c.pod(pod)
	return pod, renew, nil
}

// decide asks the agent only where the annotations leave it open. With an error the verdict is Ask where nobody
// answered, Redirect where the pod is shown to be in the mesh, and otherwise empty.
func (p plugin) decide(c *call, cfg config, pod redirect.Pod) (redirect.Decision, error) {
	decision, err := redirect.Decide(pod, cfg.Policy)
	if err == nil && decision.Verdict == redirect.Ask {
		known := pod.Annotations != nil
		var unavailable bool
		if pod, unavailable, err = p.askAgent(cfg, pod); unavailable && cfg.AuxFailOpen && !known {
			c.warn("left untouched (auxFailOpen)", err)
			decision.Verdict, decision.Reason = redirect.Untouched, redirect.ReasonAgentAway
			c.decided(decision)
			return decision, nil
		}
		if err != nil {
			return decision, err
		}
		decision, err = redirect.Decide(pod, cfg.Policy)
	}
	if err != nil {
		return decision, failed("deciding about pod "+pod.Namespace+"/"+pod.Name, err)
	}
	c.decided(decision)
	return decision, nil
}

// askAgent returns what the agent knows of the pod; unavailable says that the agent does not answer, or that there is
// none.
func (p plugin) askAgent(cfg config, pod redirect.Pod) (answer redirect.Pod, unavailable bool, err error) {
	if cfg.AgentSocket == "" {
		return pod, true, fail(types.ErrInvalidNetworkConfig, "deciding about pod "+pod.Namespace+"/"+pod.Name,
			invalid.Text("agentSocket", "", "the runtime hands over no annotations (as CRI-O before 1.29), and without an "+
				"agent nothing is known of the pod", "an agent's socket; or auxFailOpen, which lets such pods start without rules"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), cfg.AgentTimeout)
	defer cancel()
	answer, err = p.ask(ctx, cfg.AgentSocket, facts.Request{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
		NoNamespace: !cfg.Policy.ReadsNamespaces()})
	if err == nil && !answer.Complete {
		err = fmt.Errorf("the agent's answer on socket %q lacks the pod's containers", cfg.AgentSocket)
	}
	if err == nil {
		return answer, false, nil
	}
	hint := ""
	if unavailable = facts.IsUnavailable(err); unavailable {
		hint = "; the pod is tried again. If the agent is gone for good, take the plugin out of this node's chain with " +
			"`istio-pod-network-install uninstall`"
	}
	return pod, unavailable, fail(types.ErrTryAgainLater, fmt.Sprintf("deciding about pod %s/%s", pod.Namespace, pod.Name),
		fmt.Errorf("%w%s", err, hint))
}

// apply makes the namespace and the record be what the decision says. undo takes both back.
func (p plugin) apply(c *call, cfg config, args *skel.CmdArgs, pod redirect.Pod) (undo func() error, err error) {
	decision, err := p.decide(c, cfg, pod)
	if err != nil {
		return nil, err
	}
	a := attachment{call: c, cfg: cfg, args: args, pod: pod, store: record.Store{Dir: cfg.StateDir}}
	if decision.Verdict == redirect.Redirect {
		if err := a.reroutesItself(decision.Spec); err != nil {
			return nil, failed("deciding about pod "+pod.Namespace+"/"+pod.Name, err)
		}
		return a.redirect(decision)
	}
	if decision.MeshAnnotated {
		a.leave(decision)
	}
	return a.forget, nil
}

// attachment is what ADD works on: one interface of one sandbox.
type attachment struct {
	*call
	cfg   config
	args  *skel.CmdArgs
	pod   redirect.Pod
	store record.Store
}

// reroutesItself returns an error where the pod's own interface counts as one with a virtual machine behind it: what
// peers send would never come to the sidecar's inbound listener.
func (a attachment) reroutesItself(spec redirect.Spec) error {
	if nics := spec.RerouteVirtualInterfaces; nics.Has(a.args.IfName) {
		return invalid.Text("rerouteVirtualInterfaces", nics.String(), "peers reach the pod by "+a.args.IfName,
			"interfaces of machines or containers behind the pod")
	}
	return nil
}

func (a attachment) redirect(decision redirect.Decision) (undo func() error, err error) {
	netns, err := a.openNetNS(a.args)
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	if decision.Spec.Families == redirect.CapturedProxy {
		has, err := netns.Families()
		if err != nil {
			return nil, failed("asking which families the pod has", err)
		}
		decision.Spec = decision.Spec.ForAddresses(has)
	}
	rules := decision.Spec.RuleSet()
	applied, err := netns.Apply(netfilter.Backend(a.cfg.Backend), rules)
	if netfilter.IsForeign(err) {
		decision.Verdict, decision.Reason = redirect.Untouched, redirect.ReasonForeignRules
		a.decided(decision)
		a.put(a.record(netns, decision, err.Error()))
		return a.forget, nil
	}
	if err != nil {
		return nil, failed("writing the packet rules", err)
	}
	a.fields["backend"] = string(applied.Backend)
	applied.Created = a.withEarlier(netns, applied.Created)
	if err := a.keep(netns, decision, rules, applied); err != nil {
		_ = a.forget() // an earlier ADD's would speak for rules that are gone; its file is what err is about
		return nil, takenBack(fail(codeRecord, "writing the record", err), netns.Remove(applied))
	}
	return func() error { return a.undo(applied) }, nil
}

func (a attachment) undo(applied netfilter.Applied) error {
	netns, err := a.open(a.args.Netns)
	if err != nil {
		return err
	}
	defer netns.Close()
	return errors.Join(netns.Remove(applied), a.forget())
}

// forget removes the record.
func (a attachment) forget() error { return a.store.Delete(a.args.ContainerID, a.args.IfName) }

// withEarlier adds what an earlier ADD of the same attachment created. This one only found those addresses and routes:
// they are still ours to remove.
func (a attachment) withEarlier(netns namespace, created []string) []string {
	earlier, err := a.store.Get(a.args.ContainerID, a.args.IfName)
	if err != nil || earlier.NetNS != netns.id {
		return created
	}
	return union(created, earlier.Created)
}

// union is the first list and what of the second is not in it.
func union(names, more []string) []string {
	for _, name := range more {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// keep writes the record of a redirected pod.
func (a attachment) keep(
	netns namespace, decision redirect.Decision, rules redirect.RuleSet, applied netfilter.Applied,
) error {
	return putWritten(a.store, a.record(netns, decision, ""), decision.Spec, rules, applied)
}

// putWritten writes the record with what was written by which settings.
func putWritten(
	store record.Store, r record.Record, spec redirect.Spec, rules redirect.RuleSet, applied netfilter.Applied,
) (err error) {
	if r.Spec, err = json.Marshal(spec); err != nil {
		return err
	}
	r.Backend, r.RuleSetHash = string(applied.Backend), rules.Hash()
	r.Created, r.Skipped, r.Families = applied.Created, nil, spec.Families.One()
	for _, s := range applied.Skipped {
		r.Skipped = append(r.Skipped, s.String())
	}
	return store.Put(r)
}

// leave records a pod that was meant for the mesh and is left alone, so that an init wait in it learns why. Nothing
// that goes wrong here keeps the pod from starting.
func (a attachment) leave(decision redirect.Decision) {
	netns, err := a.open(a.args.Netns)
	if err != nil {
		a.warn("left untouched, without a record", err)
		return
	}
	defer netns.Close()
	earlier, err := a.store.Get(a.args.ContainerID, a.args.IfName)
	if err == nil && earlier.Decision == record.Redirect && earlier.NetNS == netns.id {
		if err := netns.Remove(appliedBy(earlier)); err != nil {
			a.warn("removing the rules of an earlier ADD failed", err)
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.warn("reading the earlier record failed", err)
	}
	a.put(a.record(netns, decision, ""))
}

// put writes a record that the pod can do without.
func (a attachment) put(r record.Record) {
	if err := a.store.Put(r); err != nil {
		a.warn("left untouched, without a record", err)
	}
}

func (a attachment) record(netns namespace, decision redirect.Decision, detail string) record.Record {
	now := a.now()
	return record.Record{
		Network: a.cfg.network, IfName: a.args.IfName, ContainerID: a.args.ContainerID,
		PodUID: a.pod.UID, Namespace: a.pod.Namespace, Name: a.pod.Name, NetNS: netns.id,
		Decision: string(decision.Verdict), Reason: string(decision.Reason), Detail: strings.TrimSpace(detail),
		Time: now, DurationMicroseconds: now.Sub(a.started).Microseconds(),
	}
}

// appliedBy returns what the ADD of the record did.
func appliedBy(r record.Record) netfilter.Applied {
	applied := netfilter.Applied{Backend: netfilter.Backend(r.Backend), Created: r.Created}
	for _, text := range r.Skipped {
		applied.Skipped = append(applied.Skipped, netfilter.ParseSkipped(text))
	}
	return applied
}
