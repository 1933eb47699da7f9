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

// anchor is a mount, and which directory of its file system it shows. The kernel reports the current path of that
// directory, even after a rename or a removal (proc_pid_mountinfo(5), fields 1 and 4).
type anchor struct {
	mount int
	root  string
}

// removed is what the kernel appends to the path of a removed directory (Linux, fs/d_path.c).
const removed = "//deleted"

// lost describes what has happened to the first of these directories that is no longer the node's, or returns "" if
// there is none. A container keeps the directory that was at the path when it was created, even if another one is there
// now.
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

// anchorOf returns the mount that contains a directory: that with the longest path, and the last of several at one
// path.
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

// unescape decodes a path in mountinfo, which has white space and backslashes in octal.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}
