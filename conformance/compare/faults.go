package main

import (
	"context"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
)

// fault is a fault that happens while pods start.
type fault struct {
	name, title string
	early       bool // it happens before the way's agent runs
	agent       bool // it needs an agent
	do          doing
}

var faults = []fault{
	{name: "early", title: "pods 10 s before the agent, from its installation on", early: true, agent: true,
		do: (*visit).early},
	{name: "killed", title: "agent killed while pods start", agent: true, do: (*visit).killed},
	{name: "rewritten", title: "primary's file rewritten", do: (*visit).rewritten},
	{name: "api-away", title: "API server away for 30 s", do: (*visit).apiAway},
}

const (
	faultPods   = 5
	killedPods  = 10
	killEvery   = 1500 * time.Millisecond
	killFor     = 15 * time.Second
	earlyBefore = 10 * time.Second // how long early pods are alone: longer than istio-validation tries
	awayFor     = 30 * time.Second
)

// early creates pods before there is an agent. The agent comes some seconds later, and the pods' time counts from then.
func (v *visit) early(ctx context.Context, m *measurement) error {
	if v.taint {
		if err := v.tainted(); err != nil {
			return err
		}
	}
	return v.come(ctx, m, faultPods, afterFault, func() (time.Time, error) {
		time.Sleep(earlyBefore)
		return time.Now(), v.install(ctx)
	})
}

// killed kills the agent again and again while pods start.
func (v *visit) killed(ctx context.Context, m *measurement) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for end := time.Now().Add(killFor); time.Now().Before(end); time.Sleep(killEvery) {
			for _, pid := range v.agents() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}()
	return v.come(ctx, m, killedPods, afterFault, func() (time.Time, error) {
		<-ended
		return time.Time{}, nil
	})
}

// rewritten makes the primary CNI write its file, and creates pods at once.
func (v *visit) rewritten(ctx context.Context, m *measurement) error {
	if err := v.rewrite(); err != nil {
		return err
	}
	return v.come(ctx, m, faultPods, afterFault, nil)
}

// apiAway lets only the kubelet of the node reach the API server, and creates pods at once.
func (v *visit) apiAway(ctx context.Context, m *measurement) error {
	v.cluster.Gate.Set(apiserver.Trouble{Abort: true})
	defer v.cluster.Gate.Set(apiserver.Trouble{})
	return v.come(ctx, m, faultPods, afterFault, func() (time.Time, error) {
		time.Sleep(awayFor)
		v.cluster.Gate.Set(apiserver.Trouble{})
		return time.Time{}, nil
	})
}
