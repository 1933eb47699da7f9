package cni

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// binDirEnv carries CNI_PATH to the re-executed test binary, and by being set says that it is on the node.
const binDirEnv = "ISTIO_POD_NETWORK_CONFORMANCE_BIN"

// pluginEnv names a plugin binary to test instead of the one built from this tree.
const pluginEnv = "ISTIO_POD_NETWORK_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(binDirEnv) != "" {
		if err := setUpNode(); err != nil {
			fmt.Fprintln(os.Stderr, "setting up the node:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	os.Exit(runOnNode())
}

// runOnNode builds everything, which may need the machine's network, and runs the tests on a node of their own.
func runOnNode() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make network namespaces and need root")
		return 1
	}
	bin, err := os.MkdirTemp("", "istio-pod-network-conformance-")
	if err == nil {
		defer os.RemoveAll(bin)
		err = buildAll(bin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	runtime.LockOSThread() // Pdeathsig is sent when the *thread* that started the child ends
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Env = append(os.Environ(), binDirEnv+"="+bin)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
	}
	err = child.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "running the tests on the node:", err)
	return 1
}

// setUpNode hides the directories CNI writes to behind tmpfs; they vanish with the mount namespace.
func setUpNode() error {
	// Without this, mounts made here would appear on the machine too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	for _, dir := range []string{"/var/lib", "/run"} { // libcni's cache and host-local's default; xtables.lock
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mounting tmpfs on %q: %w", dir, err)
		}
	}
	return nil
}
