// Package fdleak fails a package's tests when they leave file descriptors open: the plugin is short-lived, but the
// agent uses the same packages for as long as the node is up.
package fdleak

import (
	"fmt"
	"os"
)

// Run runs the tests of m, a *testing.M, and returns the exit status of the test binary: 1 where all tests passed but
// more is open than before.
func Run(m interface{ Run() int }) int {
	before := open()
	code := m.Run()
	if after := open(); code == 0 && len(after) > len(before) {
		fmt.Fprintf(os.Stderr, "file descriptors leaked: before %q, after %q\n", before, after)
		code = 1
	}
	return code
}

// open lists what this process has open, without the runtime's own poller.
func open() []string {
	entries, _ := os.ReadDir("/proc/self/fd")
	var open []string
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			open = append(open, target)
		}
	}
	return open
}
