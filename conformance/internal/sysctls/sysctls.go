// Package sysctls keeps the machine's kernel settings that clusters and many agents change, and restores them.
package sysctls

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// settings are the kernel settings that a kubelet or Keep changes. They apply to the whole machine.
var settings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", instances,
}

// instances is the limit of inotify instances per user. Every pilot-agent has three, every agent of ours two, and
// processes in pods and nodes of the tests share one user. With the kernel's default of 128, only 42 pods of a mesh
// start. Many distributions raise the limit too. wantInstances is enough for a measurement with thousands of agents.
const (
	instances     = "fs/inotify/max_user_instances"
	wantInstances = 65536
)

// keeper is where the settings are, and where they are saved.
type keeper struct {
	saved string // a file with the settings from before the first program that runs and changes them
	proc  string // the kernel's
}

// Keep saves the settings, unless another running program has done so, and raises the limit of inotify instances. It
// returns a function that restores them, unless another program that keeps them still runs: then the last one does. If
// all were killed, the next one does.
func Keep() (release func() error, err error) {
	return keeper{"/run/istio-pod-network-e2e.json", "/proc/sys"}.keep()
}

// keep does the work of Keep. Every program has a lock on the file.
func (k keeper) keep() (release func() error, err error) {
	file, first, err := lock(k.saved)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", k.saved, err)
	}
	if first {
		if err := errors.Join(k.restore(file), k.save(file), k.raise()); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() error {
		defer file.Close()
		if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			return nil
		}
		return errors.Join(k.restore(file), os.Remove(file.Name()))
	}, nil
}

// lock opens and locks the file. The lock is exclusive, and first is true, if nobody else has a lock. Otherwise it
// waits for a shared lock.
func lock(path string) (file *os.File, first bool, err error) {
	for {
		if file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return nil, false, err
		}
		first = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
		if !first {
			err = unix.Flock(int(file.Fd()), unix.LOCK_SH)
		}
		opened, failed := file.Stat()
		if err = errors.Join(err, failed); err != nil {
			return nil, false, errors.Join(err, file.Close())
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(opened, there) {
			return file, first, nil
		}
		_ = file.Close() // the last program has removed the file in the meantime
	}
}

// save writes the current settings into the file.
func (k keeper) save(file *os.File) error {
	values := map[string]string{}
	for _, name := range settings {
		value, err := os.ReadFile(filepath.Join(k.proc, name))
		if err != nil {
			return err
		}
		values[name] = strings.TrimSpace(string(value))
	}
	data, err := json.Marshal(values)
	if err != nil {
		return err
	}
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err = file.WriteAt(data, 0)
	return err
}

// raise raises the limit of inotify instances. It never lowers the limit.
func (k keeper) raise() error {
	path := filepath.Join(k.proc, instances)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	now, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || now >= wantInstances {
		return err
	}
	return os.WriteFile(path, fmt.Append(nil, wantInstances), 0o644)
}

// restore sets the settings to the values in the file. An empty file has none.
func (k keeper) restore(file *os.File) error {
	data, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<16))
	if err != nil || len(data) == 0 {
		return err
	}
	values := map[string]string{}
	if err := json.Unmarshal(data, &values); err != nil {
		return fmt.Errorf("reading %s: %w", file.Name(), err)
	}
	var failed []error
	for name, value := range values {
		failed = append(failed, os.WriteFile(filepath.Join(k.proc, name), []byte(value), 0o644))
	}
	return errors.Join(failed...)
}
