package wait

import (
	"fmt"
	"os"
	"syscall"
)

// watcher reports changes in a directory until stop is called. It may report more events than changes, and on some file
// systems none, so polling continues.
type watcher func(dir string) (changes <-chan struct{}, stop func(), err error)

// watchDir is a watcher by inotify(7). The kubelet never writes to a downward API file: it renames the link ..data in
// the same directory, which a watch on the file would miss
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
	f := os.NewFile(uintptr(fd), "inotify") // non-blocking, so closing it ends the read
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
			default: // a change is already pending
			}
		}
	}()
	return changes, func() { f.Close(); <-done }, nil
}
