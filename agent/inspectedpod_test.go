package agent

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/agent/patrol"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/record"
)

// checkedBy is a CHECK that always comes to the same.
type checkedBy func(record.Record) patrol.Checked

func (c checkedBy) Check(_ context.Context, its record.Record) patrol.Checked { return c(its) }

func (c checkedBy) Cannot(backend string) patrol.Checked { return c(record.Record{Backend: backend}) }

// Why nobody can look is said once, however many backends that is true of.
func TestUnchecked(t *testing.T) {
	for mode, want := range map[patrol.Mode][]string{
		patrol.Apply:  {"backend: nftables, for pods that are made from then on"},
		patrol.Delete: {"repair: apply"},
	} {
		c := newChecks(patrol.NewRepairer(patrol.RepairConfig{Mode: mode}))
		var values []string
		for _, its := range c.unchecked([]string{"iptables-nft", "nftables"}) {
			values = append(values, its.Change)
		}
		if !reflect.DeepEqual(values, want) {
			t.Errorf("%s: %q, want %q", mode, values, want)
		}
	}
}

// Of a pod its record is told, by the boot that it is of, and what CHECK says of it.
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
	a := &agent{boot: agenttest.Boot, pods: pods, patrol: patrol.New(patrol.Config{Store: store}),
		records: mark.NewIndex(store, agenttest.Quiet(), func(record.Record, bool) {}, func(string) {})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.records.Run(ctx) }()
	t.Cleanup(func() { cancel(); await.Must(t, <-ended) })
	await.Eventually(t, time.Minute, "the records are known", a.records.Ready)

	a.checks = newChecks(checkedBy(func(record.Record) patrol.Checked { return patrol.Checked{Looked: true, Drift: "d"} }))
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
}

// One CHECK runs at a time, and who does not come to his turn is told so.
func TestOneCheckAtATime(t *testing.T) {
	runs, goOn := make(chan bool), make(chan bool)
	c := newChecks(checkedBy(func(record.Record) patrol.Checked {
		runs <- true
		<-goOn
		return patrol.Checked{Looked: true}
	}))
	first := make(chan inspect.Rules)
	go func() { first <- c.of(context.Background(), record.Record{}) }()
	<-runs
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := c.of(ended, record.Record{}); got.Looked || got.Detail == "" {
		t.Errorf("while another runs: %+v", got)
	}
	close(goOn)
	if got := <-first; !got.Looked || !got.OK {
		t.Errorf("%+v", got)
	}
}
