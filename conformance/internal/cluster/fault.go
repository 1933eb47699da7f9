package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StateDir is the directory that agent and plugin share. Like ConfDir and BinDir it is a small file system of its own
// on every node, so that a test can fill it or make it read-only.
const StateDir = "/run/istio-pod-network"

// Processes returns the process IDs of a program in the node's network namespace, in a container or not. The name is
// the base name of the executable.
func (n *Node) Processes(program string) []int {
	own, err := os.Readlink(n.proc("ns/net"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, pid := range processes() {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != program {
			continue
		}
		if in, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && in == own {
			pids = append(pids, pid)
		}
	}
	return pids
}

// processes returns all process IDs.
func processes() []int {
	var pids []int
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Fill fills the file system of a directory. The caller must call undo, also after an error, as with all faults of this
// file.
func (n *Node) Fill(dir string) (undo func() error, err error) {
	path := n.Path(filepath.Join(dir, ".filler"))
	undo = func() error { return os.RemoveAll(path) }
	file, err := os.Create(path)
	if err != nil {
		return undo, err
	}
	defer file.Close()
	for size := 1 << 20; size > 0; {
		if _, err = file.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return undo, err
		}
	}
	return undo, nil
}

// ReadOnly makes the file system of a directory read-only until undo is called. It retries while a process has a file
// open for writing.
func (n *Node) ReadOnly(dir string) (undo func() error, err error) {
	remount := func(how string) error {
		var failed error
		_ = wait("", func() bool {
			failed = do(n.Command("mount", "-o", "remount,"+how, dir))
			return failed == nil
		})
		return failed
	}
	return func() error { return remount("rw") }, remount("ro")
}

// Stop stops the only process of a program with SIGSTOP until resume is called. It waits for a moment when the process
// has no file open in a directory. A file that is open for writing, or that was removed while open, would prevent
// ReadOnly.
func (n *Node) Stop(program, dir string) (resume func() error, err error) {
	pid := 0
	resume = func() error {
		if pid == 0 { // nothing was stopped; kill(0) would signal our own process group
			return nil
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return nil
	}
	err = wait(program+" is stopped, with no file open in "+dir, func() bool {
		pids := n.Processes(program)
		if len(pids) != 1 {
			return false
		}
		pid = pids[0]
		if syscall.Kill(pid, syscall.SIGSTOP) != nil {
			return false
		}
		if settles(pid) && !n.hasOpen(pid, dir) {
			return true
		}
		_ = resume()
		return false
	})
	return resume, err
}

// settles waits up to 500 ms until all threads of a process have stopped.
func settles(pid int) bool {
	for range 100 {
		if Stopped(pid) {
			return true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}

// Stopped reports whether all threads of a process are stopped.
func Stopped(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	return len(stats) > 0 && !slices.ContainsFunc(stats, func(path string) bool { return stateOf(path) != 'T' })
}

// hasOpen reports whether a process has a regular file open on the file system of a directory, or whether that is
// unknown.
func (n *Node) hasOpen(pid int, dir string) bool {
	var its, other syscall.Stat_t
	if syscall.Stat(n.Path(dir), &its) != nil {
		return true
	}
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	return err != nil || slices.ContainsFunc(open, func(fd string) bool {
		return syscall.Stat(fd, &other) == nil && other.Dev == its.Dev && other.Mode&syscall.S_IFMT == syscall.S_IFREG
	})
}

// Hide makes programs of the node impossible to execute until undo is called or the node is rebooted.
func (n *Node) Hide(programs ...string) (undo func() error, err error) {
	paths := map[string]bool{} // several names may be links to one program
	for _, name := range programs {
		out, err := output(n.Command("sh", "-c", `readlink -f "$(command -v `+name+`)"`))
		if err != nil {
			return n.show, fmt.Errorf("looking for %s: %w", name, err)
		}
		paths[string(bytes.TrimSpace(out))] = true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return n.show, errors.New(n.Name + " is being rebooted")
	}
	for path := range paths {
		if err := do(n.Command("mount", "--bind", "/dev/null", path)); err != nil {
			return n.show, err
		}
		n.hidden = append(n.hidden, path)
	}
	return n.show, nil
}

// show undoes all calls of Hide.
func (n *Node) show() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var failed []error
	for _, path := range n.hidden {
		failed = append(failed, do(n.Command("umount", "-l", path))) // also while a process tries to execute it
	}
	n.hidden = nil
	return errors.Join(failed...)
}

// off is a shell script that removes what a node loses when it shuts down: mounts, and files on tmpfs. It keeps
// /run/overlay, which stands for the node's disk.
const off = `
for dir in /run /var/lib/kubelet /var/lib/containerd; do
	awk -v dir="$dir/" 'index($2, dir) == 1 && index($2, "/run/overlay/") != 1 {print $2}' /proc/self/mounts |
		sort -r | while read -r path; do
		umount -l "$path"
	done
done
find /run -mindepth 1 -maxdepth 1 ! -name overlay -exec rm -rf {} +
ip link delete cni0 2>/dev/null
ip link delete cni1 2>/dev/null
nft flush ruleset
` + state

// state mounts StateDir.
const state = "mkdir -p " + StateDir + " && mount -t tmpfs -o mode=0755,size=8m tmpfs " + StateDir + "\n"

// Reboot simulates a reboot of the node. It ends all of the node's processes, in pods too, removes what a node loses
// when it shuts down, and starts the node's programs again. The boot ID stays the same.
func (n *Node) Reboot() error {
	n.setDown(true)
	defer n.setDown(false)
	n.halt()
	if err := n.show(); err != nil {
		return err
	}
	if err := wait("no process of "+n.Name+" is left", func() bool { return n.killed() == 0 }); err != nil {
		return err
	}
	if err := wait("the control groups of pods are removed", n.removePodGroups); err != nil {
		return err
	}
	if err := do(n.Command("sh", "-c", off)); err != nil {
		return err
	}
	for _, step := range []func() error{n.gate, n.containerd, n.Kubelet, n.proxy} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) setDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

// removePodGroups removes the control groups of pods. It reports whether it has removed all: a group cannot be removed
// while its processes end.
func (n *Node) removePodGroups() bool {
	hierarchies, err := controlGroups()
	for _, h := range hierarchies {
		err = errors.Join(err, removeGroups(filepath.Join(h, group(), n.Name, "kubepods")))
	}
	return err == nil
}

// killed sends SIGKILL to the processes in the node's control group and in its network namespace, and returns their
// number.
func (n *Node) killed() int {
	own, err := os.Readlink(n.proc("ns/net"))
	if err != nil {
		return 0
	}
	count := 0
	for _, pid := range processes() {
		in, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if pid == n.holder.Process.Pid || in != own && !strings.Contains(string(groups), "/"+group()+"/"+n.Name+"/") {
			continue
		}
		if syscall.Kill(pid, syscall.SIGKILL) == nil && !isZombie(pid) {
			count++
		}
	}
	return count
}

// PodProcesses returns the number of processes in the control groups of the node's pods, without zombies.
func (n *Node) PodProcesses() int {
	count := 0
	for _, pid := range processes() {
		groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if strings.Contains(string(groups), "/"+group()+"/"+n.Name+"/kubepods") && !isZombie(pid) {
			count++
		}
	}
	return count
}

// isZombie reports whether a process has ended and its parent has not waited for it.
func isZombie(pid int) bool { return stateOf(fmt.Sprintf("/proc/%d/stat", pid)) == 'Z' }

// stateOf returns the state letter in the file stat of a process or thread (proc_pid_stat(5)), or 0 if the file is
// gone.
func stateOf(path string) byte {
	stat, _ := os.ReadFile(path)
	if i := bytes.LastIndex(stat, []byte(") ")); i >= 0 && i+2 < len(stat) {
		return stat[i+2]
	}
	return 0
}
