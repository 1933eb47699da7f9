// Package isolated runs a test binary or a program as on its own node: with its own network, mount, process, IPC and
// UTS namespace. It changes nothing on the machine, and leaves nothing behind, however the program ends: when the first
// process of a process namespace ends, the kernel kills all others.
package isolated

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// binDirEnv is the environment variable that passes the directory of programs to the re-executed test binary. If it is
// set, the process is in the namespaces.
const binDirEnv = "ISTIO_POD_NETWORK_CONFORMANCE_BIN"

// BinDir returns the directory that prepare has filled. It is empty outside the namespaces.
func BinDir() string { return os.Getenv(binDirEnv) }

// interrupted is the exit status after a signal: 128 + SIGINT, as in a shell.
const interrupted = 130

// Main implements a TestMain or a main. It calls prepare, which fills a directory with programs and may use the
// machine's network. Then it runs m in new namespaces, where BinDir returns the directory. It returns the exit status.
func Main(m interface{ Run() int }, prepare func(bin string) error) int {
	if BinDir() == "" {
		return onNode(prepare)
	}
	if os.Getpid() == 1 {
		return reap()
	}
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "setting up the node:", err)
		return 1
	}
	return m.Run()
}

// onNode runs this program again in new namespaces.
func onNode(prepare func(bin string) error) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "not root, and only root may make network namespaces: run it with sudo")
		return 1
	}
	signals := make(chan os.Signal, 1) // registered before there is anything to remove
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
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
	return supervise(bin, signals)
}

// supervise runs this program again in new namespaces until it ends or a signal arrives, and returns its exit status.
func supervise(bin string, signals <-chan os.Signal) int {
	runtime.LockOSThread() // Pdeathsig is sent when the *thread* that started the child ends
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Env = append(os.Environ(), binDirEnv+"="+bin)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS |
			syscall.CLONE_NEWIPC,
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // so that only this process receives Ctrl-C
	}
	if err := child.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "making namespaces:", err)
		if errors.Is(err, syscall.EPERM) {
			fmt.Fprintln(os.Stderr, "This root may not do that; inside a container, run the container with --privileged.")
		}
		return 1
	}
	var err error
	ended := make(chan struct{})
	go func() { err = child.Wait(); close(ended) }()
	select {
	case <-signals:
		_ = child.Process.Kill()
		<-ended
		fmt.Fprintln(os.Stderr, "\ninterrupted; all of it was in namespaces of its own, which are gone")
		return interrupted
	case <-ended:
		if !child.ProcessState.Exited() {
			fmt.Fprintln(os.Stderr, "running on the node:", err)
			return 1
		}
		return child.ProcessState.ExitCode()
	}
}

// reap runs in the first process of the process namespace. It runs this program once more as its child, and returns the
// child's exit status. It also waits for orphans, such as the shims of a container runtime, which the kernel gives to
// the first process. The child waits only for processes that it has started itself.
func reap() int {
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: files})
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the program on the node:", err)
		return 1
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "waiting on the node:", err)
			return 1
		case pid != child.Pid:
		case status.Exited():
			return status.ExitStatus()
		default:
			fmt.Fprintln(os.Stderr, "running on the node: ended by", status.Signal())
			return 1
		}
	}
}

// setUp mounts tmpfs over the directories that CNI writes to, mounts /proc for the new process namespace, and sets
// loopback up. The mounts end with the mount namespace.
func setUp() error {
	// Without this, mounts made here would appear on the machine too. Within the namespace they are shared, because a
	// container runtime must see what the kubelet mounts.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("sharing mounts on the node: %w", err)
	}
	for _, m := range []struct{ kind, dir, options string }{
		{"tmpfs", "/var/lib", "mode=0755"}, // libcni's cache and host-local's default
		{"tmpfs", "/run", "mode=0755"},     // xtables.lock
		{"proc", "/proc", ""},
	} {
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mounting %s on %q: %w", m.kind, m.dir, err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("setting lo up: %w: %s", err, out)
	}
	return nil
}
