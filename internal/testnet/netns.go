package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// userShift is the host's ID for user and group ID 0 of a namespace with its own user namespace.
const userShift = 100000

// dirPrefix is the start of the name of every directory with bind mounts. The process ID follows, so that what a killed
// process has left is recognised.
const dirPrefix = "istio-testnet-"

// newNetNS creates a network namespace and bind-mounts it at path. With owned, a new user namespace owns it, which maps
// 65536 IDs from userShift on.
func newNetNS(path string, owned bool) (*os.File, error) {
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return nil, err
	}
	if err := mountNewNetNS(path, owned); err != nil {
		return nil, fmt.Errorf("making network namespace %q: %w", path, err)
	}
	return os.Open(path)
}

// mountNewNetNS has a child process create the namespace: a multithreaded process cannot create a user namespace, and a
// thread of this process that unshares could not be used again. The mount keeps the namespace when the child has ended.
func mountNewNetNS(path string, owned bool) error {
	child := exec.Command("cat") // waits until its stdin is closed
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if owned {
		mapping := []syscall.SysProcIDMap{{ContainerID: 0, HostID: userShift, Size: 65536}}
		child.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		child.SysProcAttr.UidMappings, child.SysProcAttr.GidMappings = mapping, mapping
		child.SysProcAttr.GidMappingsEnableSetgroups = true
	}
	stdin, err := child.StdinPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	err = unix.Mount(fmt.Sprintf("/proc/%d/ns/net", child.Process.Pid), path, "", unix.MS_BIND, "")
	return errors.Join(err, stdin.Close(), child.Wait())
}

// unmountAll unmounts everything in a directory and removes it.
func unmountAll(dir string) error {
	mounts, _ := filepath.Glob(filepath.Join(dir, "netns", "*"))
	for _, path := range mounts {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %q: %w", path, err)
		}
	}
	return os.RemoveAll(dir)
}

// sweep removes what killed processes have left in the temporary directory.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(unix.Kill(n, 0), unix.ESRCH) {
			_ = unmountAll(dir)
		}
	}
}
