package agent

import (
	"context"
	"slices"
	"time"

	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/agent/patrol"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/record"
)

// checkWithin limits a look into a pod's network, so that its answer comes before inspectTimeout.
const checkWithin = 8 * time.Second

// checker looks into the network namespace of a record. *patrol.Repairer does that.
type checker interface {
	Check(ctx context.Context, its record.Record) patrol.Checked
	Cannot(backend string) patrol.Checked
	Trace(ctx context.Context, its record.Record, p patrol.Packet) report.Trace
	Rules(ctx context.Context, its record.Record) report.Rules
}

// checks is a checker with a time limit for each call.
type checks struct{ checker }

// of runs CHECK for the record and returns its result.
func (c checks) of(ctx context.Context, its record.Record) inspect.Rules {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	found := c.Check(ctx, its)
	r := inspect.Rules{Looked: found.Looked, OK: found.Looked && found.Drift == "", Detail: found.Why, Change: found.Value}
	if found.Drift != "" {
		r.Detail = found.Drift
	}
	return r
}

// trace sends the packet in the network namespace of the record and returns the rules that it passes.
func (c checks) trace(ctx context.Context, its record.Record, p patrol.Packet) report.Trace {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	return c.Trace(ctx, its, p)
}

// rules returns the packet rules in the network namespace of the record.
func (c checks) rules(ctx context.Context, its record.Record) report.Rules {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	return c.Rules(ctx, its)
}

// inspectedTrace traces a packet in a pod's network. The answer says why, if that is not possible.
func (a *agent) inspectedTrace(ctx context.Context, namespace, name string, p patrol.Packet) inspect.Trace {
	t := inspect.Trace{Namespace: namespace, Name: name}
	uid, r, why := a.networkOf(namespace, name)
	if t.UID, t.Kernel.Why = uid, why; why == "" {
		t.Kernel = a.checks.trace(ctx, r, p)
	}
	return t
}

// inspectedRules returns the packet rules in a pod's network. The answer says why, if they cannot be read.
func (a *agent) inspectedRules(ctx context.Context, namespace, name string) inspect.KernelRules {
	t := inspect.KernelRules{Namespace: namespace, Name: name, Kernel: report.Rules{Tables: []report.Table{}}}
	uid, r, why := a.networkOf(namespace, name)
	if t.UID, t.Kernel.Why = uid, why; why == "" {
		t.Kernel = a.checks.rules(ctx, r)
	}
	return t
}

// networkOf returns a pod's UID and the record that names its network namespace. If there is none, why is not empty.
func (a *agent) networkOf(namespace, name string) (uid string, its record.Record, why string) {
	pod := a.pods.Named(namespace, name)
	if pod == nil {
		return "", its, unknownPod
	}
	its, found := mark.Current(a.boot, a.records.Of(kube.IDs(pod)...))
	if !found {
		why = "there is no record of the pod, so nobody knows its network"
	}
	return string(pod.UID), its, why
}

const unknownPod = "the agent knows no such pod on its node"

// inspectedPod returns what the agent knows of a pod.
func (a *agent) inspectedPod(ctx context.Context, namespace, name string) inspect.Pod {
	p := inspect.Pod{Namespace: namespace, Name: name}
	pod := a.pods.Named(namespace, name)
	if pod == nil {
		p.Rules.Detail = unknownPod
		return p
	}
	full := namespace + "/" + name
	p.UID, p.WaitsLong = string(pod.UID), kube.WaitsLong(pod, time.Now(), a.stuckAfter)
	p.Bypassed = slices.Contains(a.patrol.Bypassed(), full)
	p.Outside, p.Older = slices.Contains(a.patrol.Outside(), full), slices.Contains(a.patrol.Older(), full)
	r, found := mark.Current(a.boot, a.records.Of(kube.IDs(pod)...))
	if !found {
		p.Rules.Detail = "there is no record of the pod, so nobody knows of rules"
		return p
	}
	p.Record, p.Rules = recordedAs(r), a.checks.of(ctx, r)
	return p
}

// unchecked returns why the rules of these backends cannot be checked, each reason once.
func (c checks) unchecked(backends []string) (all []inspect.Rules) {
	for _, backend := range backends {
		cannot := c.Cannot(backend)
		its := inspect.Rules{Detail: cannot.Why, Change: cannot.Value}
		if cannot.Why != "" && !slices.Contains(all, its) {
			all = append(all, its)
		}
	}
	return all
}

// recordedAs converts a record into the form of inspect.
func recordedAs(r record.Record) *inspect.Record {
	return &inspect.Record{
		Network: r.Network, IfName: r.IfName, ContainerID: r.ContainerID, NetNS: string(r.NetNS), Decision: r.Decision,
		Reason: r.Reason, Detail: r.Detail, Backend: r.Backend, RuleSetHash: r.RuleSetHash, Families: r.Families,
		Skipped: r.Skipped, Time: r.Time,
	}
}
