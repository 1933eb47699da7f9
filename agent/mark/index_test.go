package mark

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/watch/exhausted"
	"github.com/istio-pod-network/controller/plugin/record"
)

// Every version of a record is seen once, however often the directory is read, even if it has the modification time of
// the version before. A removed record is forgotten, and its pod looked at.
func TestRecordIndex(t *testing.T) {
	store := record.Store{Dir: t.TempDir()}
	var seen []string
	changed := map[string]int{}
	x := NewIndex(store, agenttest.Quiet(), func(r record.Record, fresh bool) {
		seen = append(seen, string(r.NetNS)+map[bool]string{true: " fresh", false: ""}[fresh])
	}, func(id string) { changed[id]++ })
	put := func(netns string) string {
		r := agenttest.RecordFor(agenttest.MeshPod("cart"), netns)
		r.ContainerID, r.Spec = "sandbox", []byte(`{"mode":"REDIRECT"}`)
		if err := store.Put(r); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(store.Pods(), "sandbox-eth0.json")
	}
	expect := func(step string, events ...string) {
		t.Helper()
		x.relist()
		x.relist()
		if len(seen) != len(events) {
			t.Fatalf("%s: seen %q, want %q", step, seen, events)
		}
		for i, e := range events {
			if seen[i] != agenttest.Boot+"/"+e {
				t.Errorf("%s: seen %q, want %q", step, seen, events)
			}
		}
	}
	path := put("1/1")
	expect("first", "1/1")
	at := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
	expect("touched", "1/1", "1/1 fresh")
	put("2/2")
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
	expect("replaced at the same time", "1/1", "1/1 fresh", "2/2 fresh")
	if r := x.Of("uid-of-cart"); len(r) != 1 || r[0].NetNS != agenttest.Boot+"/2/2" || r[0].Spec != nil {
		t.Errorf("known: %+v", r)
	}
	before := changed["uid-of-cart"]
	if err := store.Delete("sandbox", "eth0"); err != nil {
		t.Fatal(err)
	}
	expect("deleted", "1/1", "1/1 fresh", "2/2 fresh")
	if len(x.Of("uid-of-cart")) != 0 || changed["uid-of-cart"] != before+1 {
		t.Errorf("a record that is gone: %+v, %d changes", x.Of("uid-of-cart"), changed["uid-of-cart"]-before)
	}
}

// The records of one pod are found without a look at those of the others: a Marker asks at every change of a pod.
func TestRecordsOfOnePod(t *testing.T) {
	x := NewIndex(record.Store{}, agenttest.Quiet(), nil, nil)
	add := func(name string) {
		x.replace(name, &recordFile{record: agenttest.RecordFor(agenttest.MeshPod(name), "1/1")})
	}
	add("cart")
	ask := func() {
		if its := x.Of("uid-of-cart", "shop/cart"); len(its) != 1 || its[0].Name != "cart" {
			t.Fatalf("the pod's records: %+v", its)
		}
	}
	alone := testing.AllocsPerRun(100, ask)
	for i := range 250 {
		add(fmt.Sprint("other-", i))
	}
	if beside := testing.AllocsPerRun(100, ask); beside != alone {
		t.Errorf("%v allocations beside 250 other records, %v without them", beside, alone)
	}
}

// Without inotify, records are still found, and the log says once why that takes longer.
func TestRecordsWithoutInotify(t *testing.T) {
	exhausted.Run(t, func(t *testing.T, _ func()) {
		var log strings.Builder
		logger := agenttest.Quiet()
		logger.SetOutput(&log)
		store, seen := record.Store{Dir: t.TempDir()}, make(chan string, 100)
		x := NewIndex(store, logger, func(r record.Record, _ bool) { seen <- r.Name }, func(string) {})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- x.Run(ctx) }()
		await.Eventually(t, time.Minute, "the directory has been read", x.Ready)
		for i, name := range []string{"one", "two", "three"} {
			r := agenttest.RecordFor(agenttest.MeshPod(name), fmt.Sprint("1/", i))
			r.ContainerID = name
			await.Must(t, store.Put(r))
			if got := <-seen; got != name {
				t.Errorf("seen %s, want %s", got, name)
			}
		}
		cancel()
		await.Must(t, <-ended)
		if n := strings.Count(log.String(), "raise the node's sysctl fs.inotify."); n != 1 {
			t.Errorf("said %d times: %s", n, log.String())
		}
	})
}
