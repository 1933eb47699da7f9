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
	// Tick is the time between two passes when no change is noticed; 30 s if it is zero. While the node is not ready, it
	// is 1 s.
	Tick time.Duration
	// Report, if it is not nil, gets every pass. It is called from Run.
	Report func(Pass)
	// Warn, if it is not nil, is told once that inotify is exhausted, so that changes are looked for every 2 s.
	Warn func(error)

	memo    memo
	anchors anchors
	contest contest
	held    bool // what is missing waits for its repair
}

// polling is the time between two passes while a directory cannot be watched.
const polling = 2 * time.Second

// Pass is one comparison of the node with the Config, and its repairs.
type Pass struct {
	Status           // as the pass leaves it
	Err      error   // of the repairs, or of reading the state
	Repaired []Cause // what was repaired, each cause once
	// Detached says what has become of a directory that is no longer the node's, "" where all are. No pass helps: the
	// container has to be made again.
	Detached string
	// Contested is how long repairs wait for each other, because somebody takes out again and again what is put in; zero
	// where nobody does.
	Contested time.Duration
}

// String says for a person whether the node is ready, and if not what is missing and what can be done about it.
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

// contested says that there is a contest; how long repairs wait in it is not said, lest each be news.
const contested = "somebody takes it out again and again, so that it is repaired only every few seconds; of a pod " +
	"that is made meanwhile the wait holds the app"

// Cause is why something had to be repaired.
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

// Run installs, and repairs every change, until the context ends: the first at once, and while somebody makes more than
// ten within 10 s, 1 s to 8 s after the last repair. Then it leaves everything in place and returns nil: a restart or
// an upgrade of the keeper must not take the plugin out of the network. An error is about an invalid Config; a failed
// repair goes to Report and is tried again.
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
		w.renew() // before the pass reads, so that no change falls between
		wait := k.pass(i)
		if w.renew() { // the pass has made directories
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

// pass repairs and reports, and returns how long to wait at most.
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
		failed = Uninstall(c, false) // the binary is where no runtime looks any more
	} else if repairs {
		if p.Repaired, failed = install(c, &k.memo); len(p.Repaired) > 0 {
			k.contest.repaired(time.Now())
		}
	} else {
		failed = i.withdraw() // the binary may be what waits for its repair
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
		return burstWithin // it may be over then
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
	inodes    map[string]os.FileInfo // by path of a directory that is to be watched; nil: it is not there
}

// renew watches the directories that are not watched yet: one may have been made, or replaced by another of the same
// name. It reports whether there was one. A directory that is known is watched anew, too: its watch has ended if it was
// away meanwhile, even where it has the inode that it had.
func (w watching) renew() (fresh bool) {
	for _, dir := range append(w.installer.network().dirs(), w.installer.BinDir) {
		info, err := os.Stat(dir)
		known := w.inodes[dir]
		same := err == nil && known != nil && os.SameFile(known, info)
		if err != nil || known != nil && !same {
			w.Remove(dir)
		}
		w.inodes[dir] = nil // it matters when it comes, and when it goes before it is watched
		if err == nil && w.Add(dir) {
			w.inodes[dir] = info
			fresh = fresh || !same
		}
	}
	return fresh
}

// next waits for a change that matters, and drops all events that are queued by then: the pass that follows reads the
// files after these changes, and a change after that read is a new event. It returns false when the context has ended.
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
		case _, due = <-failed: // the kernel's queue ran over: anything may have changed
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
