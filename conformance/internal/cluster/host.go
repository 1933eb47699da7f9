package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/sysctls"
)

// groupEnv is the environment variable that passes the name of the cluster's control group to the process in the
// namespaces.
const groupEnv = "ISTIO_POD_NETWORK_E2E_CGROUP"

// group returns the name of the control group that contains the nodes' groups, in every hierarchy.
func group() string { return os.Getenv(groupEnv) }

// host prepares the machine for nodes with those runtimes, and returns a function that undoes it. Call it outside the
// namespaces, before the process in them starts.
func host(runtimes ...Runtime) (undo func() error, err error) {
	// the name is unique, because another cluster may be running
	if err := os.Setenv(groupEnv, fmt.Sprint("istio-pod-network-e2e-", os.Getpid())); err != nil {
		return nil, err
	}
	hierarchies, err := controlGroups()
	if err != nil {
		return nil, err
	}
	release, err := sysctls.Keep()
	if err != nil {
		return nil, err
	}
	undo = func() error {
		failed := []error{release()}
		for _, h := range hierarchies {
			failed = append(failed, removeGroups(filepath.Join(h, group())))
		}
		return errors.Join(failed...)
	}
	for _, h := range hierarchies {
		err := makeGroup(h, group())
		for _, r := range runtimes {
			err = errors.Join(err, makeGroup(filepath.Join(h, group()), r.node()))
		}
		if err != nil {
			return nil, errors.Join(err, undo())
		}
	}
	return undo, nil
}

// Main is isolated.Main for a program that starts nodes with those runtimes. It restores what they change on the
// machine. It returns the exit code.
func Main(m interface{ Run() int }, prepare func(bin string) error, runtimes ...Runtime) (code int) {
	if isolated.BinDir() == "" { // outside the namespaces; isolated.Main runs this program again in them
		undo, err := host(runtimes...)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() {
			if err := undo(); err != nil {
				fmt.Fprintln(os.Stderr, "putting back what the nodes have changed:", err)
				code = 1
			}
		}()
	}
	return isolated.Main(m, prepare)
}

// controlGroups returns the roots of the cgroup hierarchies: one per controller in version 1, a single one in version
// 2.
func controlGroups() ([]string, error) {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return []string{root}, nil
	}
	found, err := filepath.Glob(filepath.Join(root, "*", "cgroup.procs"))
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("there are no control groups in %s", root)
	}
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found, nil
}

// makeGroup creates a control group in another. In version 1 a new cpuset has no processors, so it copies those of its
// parent.
func makeGroup(parent, name string) error {
	group := filepath.Join(parent, name)
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(group, name), value, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeGroups removes a control group and those below it. Their processes have ended already.
func removeGroups(group string) error {
	entries, err := os.ReadDir(group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroups(filepath.Join(group, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(group)
}
