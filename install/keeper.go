package install

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/istio-pod-network/controller/install/conflist"
	"github.com/istio-pod-network/controller/install/exchange"
	"github.com/istio-pod-network/controller/internal/entry"
)

// Keeper keeps an installation as it should be.
type Keeper struct {
	Config Config
	// Tick is how often to look although nothing was noticed; 30 s if it is zero. While something is missing it is 1 s.
	Tick time.Duration
	// Report, if it is not nil, gets every pass. It is called from Run.
	Report func(Pass)
}

// Pass is one look at the node, with the repair of what was found.
type Pass struct {
	Status           // as the pass leaves it
	Err      error   // what went wrong in it
	Repaired []Cause // what was made good, each once; empty where all was well, or where nothing could be done
}

// String says for a person whether the node is ready, and if not what is missing and what can be done about it.
func (p Pass) String() string {
	switch {
	case p.Err != nil && !IsNoPrimary(p.Err):
		return Explain(p.Err)
	case !p.Ready:
		return "not ready: " + strings.Join(p.Missing, "; ")
	}
	return fmt.Sprintf("ready: %s is in %s (%s)", entry.Type, p.Active, p.Chained)
}

// Cause is what had to be made good.
type Cause string

// The causes.
const (
	CauseBinaryMissing Cause = "binary-missing"
	CauseBinaryChanged Cause = "binary-changed" // another program was under its name, or an older release
	CauseEntryMissing  Cause = "entry-missing"  // the network that the runtime uses was without our entry
	CauseEntryChanged  Cause = "entry-changed"  // our entry was there, but another, not last, or in the wrong place
	CauseDuplicates    Cause = "duplicates"     // our entry was there more than once
)

// Causes lists every cause, for documentation and metrics.
var Causes = []Cause{CauseBinaryMissing, CauseBinaryChanged, CauseEntryMissing, CauseEntryChanged, CauseDuplicates}

// Run installs, and repairs at once whatever somebody changes, however often, until the context ends. Then it leaves
// everything in place and returns nil: a restart or an upgrade of the keeper must not take the plugin out of the
// network. An error is about a wrong Config or a kernel that lets nobody watch; a failed repair goes to Report and is
// tried again.
func (k *Keeper) Run(ctx context.Context) error {
	i, err := newInstaller(k.Config)
	if err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Close() }()
	w := watch{Watcher: watcher, installer: i, inodes: map[string]os.FileInfo{}}
	for {
		w.renew() // before the pass reads, so that no change falls between
		wait := k.pass(i.Config)
		if w.renew() { // the pass has made directories
			continue
		}
		if !w.next(ctx, wait) {
			return nil
		}
	}
}

// pass repairs and reports, and returns how long to wait at most.
func (k *Keeper) pass(c Config) time.Duration {
	var p Pass
	var failed error
	p.Repaired, failed = install(c)
	p.Status, p.Err = LookAt(c)
	if failed != nil {
		p.Err = failed
	}
	if k.Report != nil {
		k.Report(p)
	}
	if !p.Ready || p.Err != nil {
		return time.Second
	}
	if k.Tick > 0 {
		return k.Tick
	}
	return 30 * time.Second
}

// watch is what a pass depends on.
type watch struct {
	*fsnotify.Watcher
	installer *installer
	inodes    map[string]os.FileInfo // of the directories that are watched
}

// renew watches what is not watched yet: a directory may have come, or another one be under its name. It says whether
// something was new.
func (w watch) renew() (fresh bool) {
	for _, dir := range append(w.installer.network().dirs(), w.installer.BinDir) {
		info, err := os.Stat(dir)
		known := w.inodes[dir]
		if err == nil && known != nil && os.SameFile(known, info) {
			continue
		}
		if known != nil {
			_ = w.Remove(dir)
			delete(w.inodes, dir)
		}
		if err == nil && w.Add(dir) == nil {
			w.inodes[dir] = info
			fresh = true
		}
	}
	return fresh
}

// next waits for a change that matters. What is queued by then is one change: the pass that follows reads the files
// after all of it, and a change after that read is queued again, so the last one is never lost.
func (w watch) next(ctx context.Context, wait time.Duration) bool {
	tick := time.NewTimer(wait)
	defer tick.Stop()
	for due := false; !due; {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			due = true
		case _, due = <-w.Errors: // the kernel's queue ran over: anything may have changed
		case e := <-w.Events:
			due = w.matters(e)
		}
	}
	for {
		select {
		case <-w.Events:
		default:
			return ctx.Err() == nil
		}
	}
}

// matters tells a change of ours or of a configuration from one of an unrelated file.
func (w watch) matters(e fsnotify.Event) bool {
	dir, name := filepath.Split(e.Name)
	_, watched := w.inodes[filepath.Clean(e.Name)]
	switch {
	case watched: // the directory itself
		return e.Op != fsnotify.Chmod
	case strings.HasPrefix(name, exchange.Hidden):
		return false
	case filepath.Clean(dir) == filepath.Clean(w.installer.BinDir):
		return name == entry.Type
	}
	return conflist.IsConf(name)
}
