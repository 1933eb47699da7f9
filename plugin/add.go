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

// add serves ADD: it decides, writes the rules and the record, and prints the previous result. On an error it leaves
// nothing behind. The exception is a renewal: it keeps the rules and the record that the pod already has.
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
	undo := func() error { return nil } // a renewal is never undone: the pod is running
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

// podOf reads the pod's name from CNI_ARGS and adds the annotations from runtimeConfig. renew is true for a renewal.
// The error is a CNI error 4 (invalid environment variables).
func (c *call) podOf(cfg config, args *skel.CmdArgs) (pod redirect.Pod, renew bool, err error) {
	pod, renew, err = podOf(args.Args)
	if err != nil {
		return pod, renew, fail(types.ErrInvalidEnvironmentVariables, "reading the environment", err)
	}
	pod.Annotations = cfg.annotations
	c.pod(pod)
	return pod, renew, nil
}

// decide decides about the pod. It asks the agent only if the annotations are not enough. With an error, the verdict is
// Ask if the agent gave no answer, Redirect if the pod is known to be in the mesh, and empty otherwise.
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

// askAgent returns what the agent knows of the pod. unavailable is true if the agent does not answer or none is
// configured.
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

// apply brings the network namespace and the record in line with the decision. undo removes both.
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

// attachment is what ADD works on: one interface of one sandbox on one network.
type attachment struct {
	*call
	cfg   config
	args  *skel.CmdArgs
	pod   redirect.Pod
	store record.Store
}

// reroutesItself returns an error if rerouteVirtualInterfaces matches the pod's own interface. The rules treat all that
// arrives on such an interface as outbound, so what peers send would never reach the sidecar's inbound listener.
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
		_ = a.forget() // the file may be an earlier ADD's record, whose rules are gone; err already reports that file
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

// withEarlier adds what an earlier ADD of the same attachment created. To this ADD those addresses and routes were
// already there, but DEL still has to remove them.
func (a attachment) withEarlier(netns namespace, created []string) []string {
	earlier, err := a.store.Get(a.args.ContainerID, a.args.IfName)
	if err != nil || earlier.NetNS != netns.id {
		return created
	}
	return union(created, earlier.Created)
}

// union returns the first list, followed by the elements of the second that the first lacks.
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

// putWritten completes the record with the settings and with what was written, and stores it.
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

// leave records a mesh pod that is left untouched, so that its init wait learns the reason. It removes the rules of an
// earlier ADD. Its failures are only logged: they must not keep the pod from starting.
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

// put stores a record that is not essential: a failure is only logged.
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

// appliedBy rebuilds from the record what its ADD applied.
func appliedBy(r record.Record) netfilter.Applied {
	applied := netfilter.Applied{Backend: netfilter.Backend(r.Backend), Created: r.Created}
	for _, text := range r.Skipped {
		applied.Skipped = append(applied.Skipped, netfilter.ParseSkipped(text))
	}
	return applied
}
