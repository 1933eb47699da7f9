// Package isolated runs the tests of a package as on a node of their own: in a network and a mount namespace that nobody
// else has, so that nothing of the machine is touched and nothing is left however the tests end.
package isolated

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// binDirEnv carries the directory of programs to the re-executed test binary, and by being set says that it is on the node.
const binDirEnv = "ISTIO_POD_NETWORK_CONFORMANCE_BIN"

// BinDir is the directory that prepare has filled.
func BinDir() string { return os.Getenv(binDirEnv) }

// Main is the whole of a TestMain, or of a main: prepare fills a directory with programs, which may need the machine's
// network, and then m runs on a node of its own, where BinDir returns that directory. It returns the exit status.
func Main(m interface{ Run() int }, prepare func(bin string) error) int {
	if BinDir() == "" {
		return onNode(prepare)
	}
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "setting up the node:", err)
		return 1
	}
	return m.Run()
}

// onNode runs this program again on a node.
func onNode(prepare func(bin string) error) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "this makes network namespaces and needs root")
		return 1
	}
	bin, err := os.MkdirTemp("", "istio-pod-network-conformance-")
	if err == nil {
		defer os.RemoveAll(bin)
		err = os.Chmod(bin, 0o755) // other users run programs in it
	}
	if err == nil {
		err = prepare(bin)
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
	fmt.Fprintln(os.Stderr, "running on the node:", err)
	return 1
}

// setUp hides the directories CNI writes to behind tmpfs, which vanish with the mount namespace, and makes loopback work.
func setUp() error {
	// Without this, mounts made here would appear on the machine too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	for _, dir := range []string{"/var/lib", "/run"} { // libcni's cache and host-local's default; xtables.lock
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mounting tmpfs on %q: %w", dir, err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("setting lo up: %w: %s", err, out)
	}
	return nil
}
