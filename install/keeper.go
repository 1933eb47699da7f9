package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/istio-pod-network/controller/install/conflist"
	"github.com/istio-pod-network/controller/install/exchange"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/watch"
)

// Keeper keeps an installation as it should be.
type Keeper struct {
	Config Config
	// Tick is the time between two passes if no change is noticed; zero means 30 s. While the node is not ready, it is
	// 1 s.
	Tick time.Duration
	// Report, if not nil, is called by Run after every pass.
	Report func(Pass)
	// Warn, if not nil, is called once if inotify is exhausted, so that Run polls every 2 s.
	Warn func(error)

	memo    memo
	anchors anchors
	contest contest
	held    bool // a repair is due, but has to wait
}

// polling is the time between two passes while a directory cannot be watched.
const polling = 2 * time.Second

// Pass is the result of one comparison of the node with the Config, and of its repairs.
type Pass struct {
	Status           // after the pass
	Err      error   // of the repairs, or of reading the state
	Repaired []Cause // the causes of repairs, without duplicates
	// Detached describes what has happened to a directory that is no longer the node's. It is "" if there is none. Only
	// a new container helps.
	Detached string
	// Contested is how long repairs wait, because somebody repeatedly removes what is put in. It is zero without a
	// contest.
	Contested time.Duration
}

// String says whether the node is ready, and if not what is missing and how to fix it.
func (p Pass) String() string {
	switch {
	case p.Err != nil && !IsNoPrimary(p.Err):
		return Explain(p.Err)
	case !p.Ready:
		return "not ready: " + strings.Join(p.Missing, "; ")
	}
	text := fmt.Sprintf("ready: %s is in %s (%s)", entry.Type, p.Active, p.Chained)
	if p.Contested > 0 {
		text += "; " + contested
	}
	if len(p.NotFound) > 0 {
		text += "; not found where the runtime looks for plugins: " + strings.Join(p.NotFound, ", ")
	}
	return text
}

// contested is the text about a contest. It does not have the time between repairs, because each change would be
// reported.
const contested = "somebody takes it out again and again, so that it is repaired only every few seconds; of a pod " +
	"that is made meanwhile the wait holds the app"

// Cause is the reason for a repair.
type Cause string

// The causes.
const (
	CauseBinaryMissing Cause = "binary-missing"
	CauseBinaryChanged Cause = "binary-changed" // another program had its name, or an older release
	CauseEntryMissing  Cause = "entry-missing"  // the network that the runtime uses was without our entry
	CauseEntryChanged  Cause = "entry-changed"  // our entry was different, not last, or in the wrong file
	CauseDuplicates    Cause = "duplicates"     // our entry was there more than once
)

// Causes lists every cause, for documentation and metrics.
var Causes = []Cause{CauseBinaryMissing, CauseBinaryChanged, CauseEntryMissing, CauseEntryChanged, CauseDuplicates}

// Run installs, and repairs every change until the context ends. It repairs at once; after ten repairs within 10 s, it
// waits 1 s to 8 s before each one. When the context ends, it leaves everything in place and returns nil: a restart or
// an upgrade of the keeper must not remove the plugin from the network. It returns an error only for an invalid Config.
// It reports a failed repair and tries it again.
func (k *Keeper) Run(ctx context.Context) error {
	i, err := newInstaller(k.Config, &k.memo)
	if err != nil {
		return err
	}
	dirs := watch.New(func(err error) {
		if k.Warn != nil {
			k.Warn(err)
		}
	})
	defer dirs.Close()
	w := watching{Dirs: dirs, installer: i, inodes: map[string]os.FileInfo{}}
	for {
		w.renew() // before the pass reads, so that no change is missed
		wait := k.pass(i)
		if w.renew() { // the pass has created directories
			continue
		}
		if w.Lacking() {
			wait = min(wait, polling)
		}
		events, failed := w.Events(), w.Errors()
		if k.held {
			events, failed = nil, nil // what is missing is known, and when it may be repaired
		}
		if !w.next(ctx, wait, events, failed) {
			return nil
		}
		if k.contest.goesOn() && !k.held && !w.next(ctx, contestedLook, nil, nil) {
			return nil
		}
	}
}

// pass repairs and reports, and returns the longest time until the next pass.
func (k *Keeper) pass(i *installer) time.Duration {
	c := i.Config
	var p Pass
	var failed error
	if k.anchors == nil {
		k.anchors = anchors{}
	}
	p.Detached = k.anchors.lost(c.mounted())
	repairs := k.contest.mayRepair(time.Now())
	if k.anchors.lost([]string{c.BinDir}) != "" {
		failed = Uninstall(c, false) // the runtime no longer looks where the binary is
	} else if repairs {
		if p.Repaired, failed = install(c, &k.memo); len(p.Repaired) > 0 {
			k.contest.repaired(time.Now())
		}
	} else {
		failed = i.withdraw() // the binary may be what has to wait for its repair
	}
	p.Status, p.Err = lookAt(c, &k.memo)
	if p.Contested = k.contest.wait; p.Contested > 0 && !p.Ready {
		p.miss(contested)
	}
	if failed != nil && (p.Contested == 0 || !errors.Is(failed, errUnsteady)) {
		p.Err = failed
	}
	if p.Detached != "" {
		p.miss("%s; this container has to be made again", p.Detached)
		p.Ready = false
	}
	if k.Report != nil {
		k.Report(p)
	}
	if k.held = !repairs && !p.Ready; k.held {
		return max(time.Until(k.contest.next), time.Millisecond)
	}
	switch {
	case !p.Ready || p.Err != nil:
		return time.Second
	case p.Contested > 0:
		return burstWithin // the contest may be over then
	}
	if k.Tick > 0 {
		return k.Tick
	}
	return 30 * time.Second
}

// mounted returns the directories in which the Keeper writes.
func (c Config) mounted() []string {
	dirs := []string{c.BinDir, c.ConfDir}
	if c.Mode != ModeChain {
		dirs = append(dirs, c.AuxDir)
	}
	return dirs
}

// watching notices changes of what a pass reads.
type watching struct {
	*watch.Dirs
	installer *installer
	inodes    map[string]os.FileInfo // by path of a directory to watch; nil: it does not exist
}

// renew watches the directories that are not watched yet: a directory may have been created, or replaced. It returns
// whether there was one. It also adds a known directory again: its watch has ended if it was away meanwhile, even if it
// has the same inode now.
func (w watching) renew() (fresh bool) {
	for _, dir := range append(w.installer.network().dirs(), w.installer.BinDir) {
		info, err := os.Stat(dir)
		known := w.inodes[dir]
		same := err == nil && known != nil && os.SameFile(known, info)
		if err != nil || known != nil && !same {
			w.Remove(dir)
		}
		w.inodes[dir] = nil // its creation matters, and its removal before it is watched
		if err == nil && w.Add(dir) {
			w.inodes[dir] = info
			fresh = fresh || !same
		}
	}
	return fresh
}

// next waits for a change that matters, and then drops all queued events. The next pass reads the files after these
// changes, and a later change is a new event. It returns false when the context has ended.
func (w watching) next(
	ctx context.Context, wait time.Duration, events <-chan fsnotify.Event, failed <-chan error,
) bool {
	tick := time.NewTimer(wait)
	defer tick.Stop()
	for due := false; !due; {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			due = true
		case _, due = <-failed: // the kernel's queue has overflowed: anything may have changed
		case e := <-events:
			due = w.matters(e)
		}
	}
	for {
		select {
		case <-events:
		default:
			return ctx.Err() == nil
		}
	}
}

// matters reports whether an event is about the plugin's binary, a configuration or a watched directory.
func (w watching) matters(e fsnotify.Event) bool {
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
