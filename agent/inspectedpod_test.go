package agent

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/agent/patrol"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/record"
)

// checkedBy is a checker whose CHECK is the function.
type checkedBy func(record.Record) patrol.Checked

func (c checkedBy) Check(_ context.Context, its record.Record) patrol.Checked { return c(its) }

func (c checkedBy) Cannot(backend string) patrol.Checked { return c(record.Record{Backend: backend}) }

// Each reason why nobody can check is in the answer once, for however many backends it holds.
func TestUnchecked(t *testing.T) {
	for mode, want := range map[patrol.Mode][]string{
		patrol.Apply:  {"backend: nftables, for pods that are made from then on"},
		patrol.Delete: {"repair: apply"},
	} {
		c := checks{patrol.NewRepairer(patrol.RepairConfig{Mode: mode})}
		var values []string
		for _, its := range c.unchecked([]string{"iptables-nft", "nftables"}) {
			values = append(values, its.Change)
		}
		if !reflect.DeepEqual(values, want) {
			t.Errorf("%s: %q, want %q", mode, values, want)
		}
	}
}

func (c checkedBy) Trace(_ context.Context, its record.Record, p patrol.Packet) report.Trace {
	return report.Trace{From: p.From, To: p.To, Why: c(its).Why}
}

func (c checkedBy) Rules(_ context.Context, its record.Record) report.Rules {
	return report.Rules{Why: c(its).Why, Legacy: []string{its.ContainerID}}
}

// indexed returns the records of a store.
func indexed(t *testing.T, store record.Store) *mark.Index {
	t.Helper()
	index := mark.NewIndex(store, agenttest.Quiet(), func(record.Record, bool) {}, func(string) {})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- index.Run(ctx) }()
	t.Cleanup(func() { cancel(); await.Must(t, <-ended) })
	await.Eventually(t, time.Minute, "the records are known", index.Ready)
	return index
}

// The answer has the pod's record of this boot, and the result of CHECK.
func TestInspectedPod(t *testing.T) {
	marked, unrecorded := agenttest.MeshPod("marked"), agenttest.MeshPod("unrecorded")
	pods, _ := agenttest.Pods(t, func(string) {}, marked, unrecorded)
	store := record.Store{Dir: t.TempDir()}
	its, other := agenttest.RecordFor(marked, "1/1"), agenttest.RecordFor(unrecorded, "2/2")
	its.ContainerID, other.ContainerID = "c1", "c2"
	its.Time = time.Unix(1, 0).UTC()
	other.NetNS = "another-boot/2/2"
	await.Must(t, store.Put(its))
	await.Must(t, store.Put(other))
	ctx := t.Context()
	a := &agent{boot: agenttest.Boot, pods: pods, patrol: patrol.New(patrol.Config{Store: store}),
		records: indexed(t, store)}

	a.checks = checks{checkedBy(func(record.Record) patrol.Checked { return patrol.Checked{Looked: true, Drift: "d"} })}
	want := inspect.Pod{Namespace: "shop", Name: "marked", UID: "uid-of-marked", Record: &inspect.Record{
		Network: its.Network, IfName: its.IfName, ContainerID: its.ContainerID, NetNS: string(its.NetNS),
		Decision: "redirect", Reason: "injected", Backend: "nftables", RuleSetHash: its.RuleSetHash, Time: its.Time,
	}, Rules: inspect.Rules{Looked: true, Detail: "d"}}
	if got := a.inspectedPod(ctx, "shop", "marked"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %+v, want %+v %+v", got, got.Record, want, want.Record)
	}
	if got := a.inspectedPod(ctx, "shop", "unrecorded"); got.UID == "" || got.Record != nil || got.Rules.Looked ||
		got.Rules.Detail == "" {
		t.Errorf("%+v", got)
	}
	if got := a.inspectedPod(ctx, "shop", "absent"); got.UID != "" || got.Record != nil || got.Rules.Detail == "" {
		t.Errorf("%+v", got)
	}
	traced := func(name string) inspect.Trace {
		return a.inspectedTrace(ctx, "shop", name, patrol.Packet{From: "outside", Proto: "tcp", To: "1.2.3.4:5"})
	}
	if got := traced("marked"); got.UID == "" || got.Kernel.Why != "" || got.Kernel.From != "outside" ||
		got.Kernel.To != "1.2.3.4:5" {
		t.Errorf("%+v", got)
	}
	if got := a.inspectedRules(ctx, "shop", "marked"); got.UID == "" || got.Kernel.Why != "" ||
		got.Kernel.Legacy[0] != "c1" {
		t.Errorf("%+v", got)
	}
	if got := a.inspectedRules(ctx, "shop", "absent"); got.UID != "" || got.Kernel.Why != unknownPod {
		t.Errorf("%+v", got)
	}
	if got := traced("unrecorded"); got.UID == "" || !strings.Contains(got.Kernel.Why, "no record") {
		t.Errorf("%+v", got)
	}
	if got := traced("absent"); got.UID != "" || got.Kernel.Why != unknownPod {
		t.Errorf("%+v", got)
	}
}
