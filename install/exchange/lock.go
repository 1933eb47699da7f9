package exchange

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait is how long Lock waits for another installer.
const lockWait = 10 * time.Second

// Lock keeps two installers from working in one directory at once. It uses flock(2) on the directory itself, so that a
// killed process leaves no lock behind. It then calls Recover for the directory.
func Lock(dir string) (unlock func(), err error) {
	d, err := lock(dir)
	if err != nil {
		return nil, err
	}
	if err := Recover(dir); err != nil {
		d.Close()
		return nil, err
	}
	return func() { d.Close() }, nil
}

func lock(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return d, nil
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			d.Close()
			return nil, fmt.Errorf("locking %q: another installer may be at work on it: %w", dir, err)
		}
	}
}
