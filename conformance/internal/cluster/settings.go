package cluster

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

// settings are those of the kernel that the kubelet or raise changes, for the whole machine.
var settings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", instances,
}

// instances is how many inotify instances a user may have. A pilot-agent has three, and those of all pods are of one
// user: of the kernel's 128 no more than 42 pods of a mesh come up. Many distributions have raised it, as raise does.
const (
	instances     = "fs/inotify/max_user_instances"
	wantInstances = 8192
)

// settingsFile holds what the settings were before the first of the clusters that are up now. Every cluster has a lock
// on it, so that the last one puts them back; and if all were killed, the next one does.
const settingsFile = "/run/istio-pod-network-e2e.json"

// keepSettings remembers the settings, unless another cluster that is up has done so, and returns what puts them back,
// unless another cluster is still up then.
func keepSettings() (release func() error, err error) {
	file, first, err := lockSettings(settingsFile)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", settingsFile, err)
	}
	if first {
		if err := errors.Join(restore(file), save(file), raise()); err != nil {
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
		return errors.Join(restore(file), os.Remove(file.Name()))
	}, nil
}

// lockSettings opens the file and locks it: exclusively and first, where nobody else has it, and shared otherwise.
func lockSettings(path string) (file *os.File, first bool, err error) {
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
		_ = file.Close() // the last cluster has removed it meanwhile
	}
}

// save writes the settings into the file.
func save(file *os.File) error {
	values := map[string]string{}
	for _, name := range settings {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
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

// raise raises the limit of inotify instances to what nodes full of sidecars need. A higher one stays.
func raise() error {
	path := filepath.Join("/proc/sys", instances)
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

// restore puts the settings back as the file has them. An empty file has none.
func restore(file *os.File) error {
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
		failed = append(failed, os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644))
	}
	return errors.Join(failed...)
}
