package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/istio-pod-network/controller/conformance/crio/wire"
)

// The first minor versions of CRI-O with a behaviour.
const (
	relaysAnnotations = 29
	asksStatus        = 32 // and then calls GC
	forgets           = 34 // a sandbox whose DEL has failed
)

// statusEvery is the time between two calls of STATUS at the start.
const statusEvery = 500 * time.Millisecond

// runtime is CRI-O's networking.
type runtime struct {
	networks
	calls *calls

	garbage   sync.RWMutex // read-locked while a sandbox is made or stopped
	mu        sync.Mutex
	sandboxes map[string]*wire.Sandbox
}

// start starts the runtime and continues with the existing sandboxes.
func start(ctx context.Context, c wire.Config) (*runtime, error) {
	calls := newCalls()
	r := &runtime{
		networks:  networks{config: c, cni: libcni.NewCNIConfigWithCacheDir(c.BinDirs, c.CacheDir, calls)},
		calls:     calls,
		sandboxes: map[string]*wire.Sandbox{},
	}
	for _, dir := range []string{c.NetNSDir, c.StateDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := r.watch(ctx); err != nil {
		return nil, err
	}
	r.load(ctx)
	if err := r.restore(ctx); err != nil {
		return nil, err
	}
	if c.Minor >= asksStatus {
		go r.collect(ctx)
	}
	return r, nil
}

// restore looks at each sandbox of an earlier process. It calls DEL for those from before a reboot, CHECK for the
// others.
func (r *runtime) restore(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(r.config.StateDir, "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		s := &wire.Sandbox{}
		if err := json.Unmarshal(data, s); err != nil {
			return err
		}
		r.keep(s)
	}
	for _, s := range r.list() {
		if _, err := os.Stat(s.NetNS); err != nil {
			if err := r.stop(ctx, s.ID); err != nil {
				log.Printf("sandbox %s of before: %v", s.ID, err)
			}
			continue
		}
		s.Addresses, err = r.check(ctx, s)
		if err != nil {
			log.Print(notRestored(s, err))
		}
		r.keep(&s)
	}
	return nil
}

// collect waits until the network is ready, and then calls GC. The valid attachments are those of the default network
// alone.
func (r *runtime) collect(ctx context.Context) {
	for {
		list := r.current()
		if list != nil && status(ctx, r.cni, list) == nil {
			break
		}
		time.Sleep(statusEvery)
	}
	r.garbage.Lock()
	defer r.garbage.Unlock()
	lists, first := r.all()
	for _, list := range lists {
		var ids []string
		if list.Name == first {
			for _, s := range r.list() {
				ids = append(ids, s.ID)
			}
		}
		if err := collectGarbage(ctx, r.cni, list, ids, ifName); err != nil {
			log.Printf("collecting garbage of %s: %v", list.Name, err)
		}
	}
}

// keep stores a sandbox, also for the next process.
func (r *runtime) keep(s *wire.Sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandboxes[s.ID] = s
	data, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(r.file(s.ID)+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(r.file(s.ID)+".new", r.file(s.ID))
	}
	if err != nil {
		log.Print(err)
	}
}

// drop removes a sandbox.
func (r *runtime) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sandboxes, id)
	_ = os.Remove(r.file(id))
}

func (r *runtime) file(id string) string { return filepath.Join(r.config.StateDir, id+".json") }

// list returns all sandboxes, sorted.
func (r *runtime) list() (all []wire.Sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sandboxes {
		all = append(all, *s)
	}
	sort.Slice(all, func(i, k int) bool { return strings.Compare(all[i].ID, all[k].ID) < 0 })
	return all
}
