package agent

import (
	"context"
	"slices"
	"time"

	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/agent/patrol"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
)

// checkWithin bounds a CHECK, so that its answer is there before inspectTimeout.
const checkWithin = 8 * time.Second

// checker looks at the rules of a record.
type checker interface {
	Check(ctx context.Context, its record.Record) patrol.Checked
	Cannot(backend string) patrol.Checked
}

// checks lets one CHECK run at a time: each is a process in the agent's container, which has a limit of memory.
type checks struct {
	checker
	turn chan struct{}
}

func newChecks(by checker) checks { return checks{by, make(chan struct{}, 1)} }

// of looks at the rules of a record when it is its turn.
func (c checks) of(ctx context.Context, its record.Record) inspect.Rules {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return inspect.Rules{Detail: "the agent looks at the rules of other pods: ask again"}
	}
	found := c.Check(ctx, its)
	r := inspect.Rules{Looked: found.Looked, OK: found.Looked && found.Drift == "", Detail: found.Why, Change: found.Value}
	if found.Drift != "" {
		r.Detail = found.Drift
	}
	return r
}

// inspectedPod is what the agent knows of a pod.
func (a *agent) inspectedPod(ctx context.Context, namespace, name string) inspect.Pod {
	p := inspect.Pod{Namespace: namespace, Name: name}
	pod := a.pods.Named(namespace, name)
	if pod == nil {
		p.Rules.Detail = "the agent knows no such pod on its node"
		return p
	}
	full := namespace + "/" + name
	p.UID, p.WaitsLong = string(pod.UID), kube.WaitsLong(pod, time.Now(), a.stuckAfter)
	p.Bypassed = slices.Contains(a.patrol.Bypassed(), full)
	p.Outside, p.Older = slices.Contains(a.patrol.Outside(), full), slices.Contains(a.patrol.Older(), full)
	r, found := mark.Current(a.boot, recordsOf(pod, a.records.ByPod()))
	if !found {
		p.Rules.Detail = "there is no record of the pod, so nobody knows of rules"
		return p
	}
	p.Record, p.Rules = recordedAs(r), a.checks.of(ctx, r)
	return p
}

// unchecked is why nobody can look at the rules that these backends have written, each reason once.
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

// recordsOf are those of a pod.
func recordsOf(pod *corev1.Pod, records map[string][]record.Record) (its []record.Record) {
	for _, id := range kube.IDs(pod) {
		its = append(its, records[id]...)
	}
	return its
}

// recordedAs is a record as it is told.
func recordedAs(r record.Record) *inspect.Record {
	return &inspect.Record{
		Network: r.Network, IfName: r.IfName, ContainerID: r.ContainerID, NetNS: string(r.NetNS), Decision: r.Decision,
		Reason: r.Reason, Detail: r.Detail, Backend: r.Backend, RuleSetHash: r.RuleSetHash, Families: r.Families,
		Skipped: r.Skipped, Time: r.Time,
	}
}
