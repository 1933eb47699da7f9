// Package watch tells of changes in directories by inotify, and of directories that inotify cannot watch. The kernel
// has few instances and watches of it for all programs of a user, containers included, and any of them may use them up.
package watch

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// Dirs watches directories. It is used by one goroutine.
type Dirs struct {
	say     func(error)
	watcher *fsnotify.Watcher // nil while there is no instance of inotify
	lacking map[string]bool   // directories that are there and are not watched
	said    bool
}

// New returns a Dirs that watches nothing yet. The first time that inotify is exhausted it calls say, with an error
// that names the sysctl to raise.
func New(say func(error)) *Dirs { return &Dirs{say: say, lacking: map[string]bool{}} }

// Add watches a directory, which need not exist, and reports whether it is watched now.
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

// explain adds what to do; inotify(7) tells what the errors mean.
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

// Remove watches a directory no longer.
func (d *Dirs) Remove(dir string) {
	delete(d.lacking, dir)
	if d.watcher != nil {
		_ = d.watcher.Remove(dir)
	}
}

// Lacking reports whether a directory is there that is not watched, so that changes have to be looked for.
func (d *Dirs) Lacking() bool { return len(d.lacking) > 0 }

// Events are those of the directories that are watched.
func (d *Dirs) Events() <-chan fsnotify.Event {
	if d.watcher == nil {
		return nil
	}
	return d.watcher.Events
}

// Errors say that events were lost.
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
