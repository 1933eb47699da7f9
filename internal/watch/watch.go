// Package watch reports changes in directories by inotify(7), and which directories inotify cannot watch. The kernel
// limits inotify instances and watches for each user, containers included, so any program may use them up.
package watch

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// Dirs watches directories. It is not safe for concurrent use.
type Dirs struct {
	say     func(error)
	watcher *fsnotify.Watcher // nil while no inotify instance is available
	lacking map[string]bool   // directories that exist and are not watched
	said    bool
}

// New returns a Dirs without directories. It calls say the first time that inotify is exhausted, with an error that
// names the sysctl to raise.
func New(say func(error)) *Dirs { return &Dirs{say: say, lacking: map[string]bool{}} }

// Add watches a directory, which need not exist. It returns whether the directory is watched now.
func (d *Dirs) Add(dir string) bool {
	err := d.add(dir)
	delete(d.lacking, dir)
	if err == nil {
		return true
	}
	if _, gone := os.Stat(dir); gone != nil {
		return false
	}
	d.lacking[dir] = true
	if !d.said {
		d.said = true
		d.say(explain(err))
	}
	return false
}

func (d *Dirs) add(dir string) (err error) {
	if d.watcher == nil {
		if d.watcher, err = fsnotify.NewWatcher(); err != nil {
			d.watcher = nil
			return err
		}
	}
	return d.watcher.Add(dir)
}

// explain adds a remedy to the errors of inotify(7).
func explain(err error) error {
	sysctl := ""
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		sysctl = "fs.inotify.max_user_instances"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.ENOMEM):
		sysctl = "fs.inotify.max_user_watches"
	default:
		return fmt.Errorf("inotify: %w: files are looked at again and again instead", err)
	}
	return fmt.Errorf("inotify: %w: files are looked at again and again instead; raise the node's sysctl %s", err, sysctl)
}

// Remove stops watching a directory.
func (d *Dirs) Remove(dir string) {
	delete(d.lacking, dir)
	if d.watcher != nil {
		_ = d.watcher.Remove(dir)
	}
}

// Lacking reports whether any existing directory is not watched, so that the caller has to poll.
func (d *Dirs) Lacking() bool { return len(d.lacking) > 0 }

// Events returns the events of the watched directories.
func (d *Dirs) Events() <-chan fsnotify.Event {
	if d.watcher == nil {
		return nil
	}
	return d.watcher.Events
}

// Errors returns the errors that say that events were lost.
func (d *Dirs) Errors() <-chan error {
	if d.watcher == nil {
		return nil
	}
	return d.watcher.Errors
}

// Close ends all watches.
func (d *Dirs) Close() {
	if d.watcher != nil {
		_ = d.watcher.Close()
	}
}
