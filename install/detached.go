package install

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// anchors are the mounts through which a Keeper sees its directories, by directory.
type anchors map[string]anchor

// anchor is a mount and which directory of its file system it shows. The kernel tells where that directory is now, also
// after it was renamed or removed under the mount (proc_pid_mountinfo(5), fields 1 and 4).
type anchor struct {
	mount int
	root  string
}

// removed is what the kernel appends to the name of a directory that is gone (Linux, fs/d_path.c).
const removed = "//deleted"

// lost returns what has become of the first of these directories that is no longer the node's, "" if all are: a
// container keeps the directory that was at that path when it was made, whatever is there by now.
func (a anchors) lost(dirs []string) string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for _, dir := range dirs {
		now, ok := anchorOf(dir, mounts)
		if !ok {
			continue
		}
		before, known := a[dir]
		if !known || before.mount != now.mount {
			a[dir] = now
			before = now
		}
		was := strings.TrimSuffix(before.root, removed)
		switch {
		case strings.HasSuffix(now.root, removed):
			return fmt.Sprintf("%q was removed on the node, or replaced by another: what is mounted there is %q", dir, was)
		case now.root != before.root:
			return fmt.Sprintf("%q was renamed on the node: what is mounted there was %q and is %q now", dir, was, now.root)
		}
	}
	return ""
}

// anchorOf finds the mount that a directory is in: that with the longest path, of several at one path the last.
func anchorOf(dir string, mounts []byte) (found anchor, ok bool) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return found, false
	}
	longest := -1
	for line := range bytes.Lines(mounts) {
		fields := strings.Fields(string(line))
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		below := strings.TrimSuffix(point, "/") + "/"
		id, err := strconv.Atoi(fields[0])
		if err == nil && len(point) >= longest && (real == point || strings.HasPrefix(real, below)) {
			longest, found, ok = len(point), anchor{id, unescape(fields[3])}, true
		}
	}
	return found, ok
}

// unescape reads a path as mountinfo has it: white space and backslashes are octal.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}
