package wait

import (
	"fmt"
	"os"
	"syscall"
)

// watcher tells of changes in a directory until stop is called. There may be more events than changes, and a file
// system may keep quiet, so that polling goes on.
type watcher func(dir string) (changes <-chan struct{}, stop func(), err error)

// watchDir is a watcher by inotify. The kubelet never writes into a downward API file: it renames the link ..data
// beside it, which a watch of the file would not see
// (https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go).
func watchDir(dir string) (<-chan struct{}, func(), error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, nil, fmt.Errorf("watching %q: %w", dir, err)
	}
	const mask = syscall.IN_CREATE | syscall.IN_MOVED_TO | syscall.IN_CLOSE_WRITE | syscall.IN_ATTRIB
	if _, err := syscall.InotifyAddWatch(fd, dir, mask); err != nil {
		_ = syscall.Close(fd)
		return nil, nil, fmt.Errorf("watching %q: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), "inotify") // non-blocking: closing it ends the read
	changes, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		var events [4096]byte
		for {
			if _, err := f.Read(events[:]); err != nil {
				return
			}
			select {
			case changes <- struct{}{}:
			default: // one is waiting to be seen
			}
		}
	}()
	return changes, func() { f.Close(); <-done }, nil
}
