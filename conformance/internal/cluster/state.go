package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/files"
)

// Entry is a directory entry: a file, a directory or a symbolic link.
type Entry struct {
	Mode     fs.FileMode
	Contents string // contents of a file, or target of a link
}

// Files are the entries of a node's CNI directories and StateDir, by path on the node.
type Files map[string]Entry

// dirs returns the directories that the product writes to.
func (n *Node) dirs() []string {
	if n.Runtime == OpenShift {
		return []string{OpenShiftBinDir, OpenShiftConfDir, MultusConfDir, MultusAutoDir, StateDir}
	}
	return []string{ConfDir, BinDir, StaticDir, StateDir}
}

// Files reads the entries of the node's directories.
func (n *Node) Files() (Files, error) {
	all := Files{}
	for _, dir := range n.dirs() {
		root := n.Path(dir)
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			var e Entry
			if err == nil && path != root {
				if e, err = read(path); err == nil {
					all[dir+strings.TrimPrefix(path, root)] = e
				}
			}
			if errors.Is(err, fs.ErrNotExist) { // removed in the meantime
				return nil
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func read(path string) (e Entry, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return e, err
	}
	e.Mode = info.Mode()
	switch {
	case e.Mode.IsRegular():
		var data []byte
		data, err = os.ReadFile(path)
		e.Contents = string(data)
	case e.Mode&fs.ModeSymlink != 0:
		e.Contents, err = os.Readlink(path)
	}
	return e, err
}

// PutBack restores the directories to an earlier state.
func (n *Node) PutBack(before Files) error {
	now, err := n.Files()
	failed := []error{err}
	for path := range now {
		if _, was := before[path]; !was {
			failed = append(failed, os.RemoveAll(n.Path(path)))
		}
	}
	paths := make([]string, 0, len(before))
	for path := range before {
		paths = append(paths, path)
	}
	slices.Sort(paths) // a directory comes before its entries
	for _, path := range paths {
		if e := before[path]; now[path] != e {
			failed = append(failed, e.write(n.Path(path)))
		}
	}
	return errors.Join(append(failed, os.Chmod(n.Path(StateDir), 0o755))...)
}

// write replaces the entry. A file appears by a rename, because the runtime watches the directory.
func (e Entry) write(path string) error {
	if e.Mode.IsDir() {
		return os.MkdirAll(path, e.Mode.Perm())
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	if e.Mode&fs.ModeSymlink != 0 {
		return os.Symlink(e.Contents, path)
	}
	mode := func(f *os.File) error { return f.Chmod(e.Mode.Perm()) }
	return files.Replace(path, files.Temp(filepath.Dir(path), ".putting-back-"), strings.NewReader(e.Contents), mode)
}

// RemoveBridges deletes the bridges of the pods' networks. A bridge keeps the kernel settings from its creation, and
// the next pod creates it again. No running pod may need them.
func (n *Node) RemoveBridges() error {
	const remove = "for bridge in cni0 cni1; do test ! -e /proc/sys/net/ipv4/conf/$bridge || ip link delete $bridge; done"
	return do(n.Command("sh", "-c", remove))
}

// withoutIPv6 is a shell script that prints the networks without IPv6.
const withoutIPv6 = `cd /proc/sys/net/ipv6/conf
for i in default cni0; do test ! -e $i || test "$(cat $i/disable_ipv6)" = 0 || echo "without IPv6: $i"; done`

// Settings returns what a test may have changed on a node besides files: how its directories are mounted, which
// programs are hidden, and which networks have no IPv6.
func (n *Node) Settings() (lines []string, err error) {
	mounts, err := os.ReadFile(n.proc("mounts"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 3 && slices.Contains(n.dirs(), f[1]) {
			how, _, _ := strings.Cut(f[3], ",")
			lines = append(lines, "mounted "+how+": "+f[1])
		}
	}
	n.mu.Lock()
	for _, program := range n.hidden {
		lines = append(lines, "hidden: "+program)
	}
	n.mu.Unlock()
	out, err := output(n.Command("sh", "-c", withoutIPv6))
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines, err
}

// PutBackSettings restores what Settings returns: the directories are writable, no program is hidden, and new networks
// have IPv6.
func (n *Node) PutBackSettings() error {
	failed := []error{n.show(), do(n.Command("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=0"))}
	for _, dir := range n.dirs() {
		failed = append(failed, do(n.Command("sh", "-c", "! mountpoint -q "+dir+" || mount -o remount,rw "+dir)))
	}
	return errors.Join(failed...)
}
