// Package fdleak fails a package's tests if they leave file descriptors open. The plugin ends soon, but the agent uses
// the same packages for as long as the node is up.
package fdleak

import (
	"fmt"
	"os"
)

// Run runs the tests of m, a *testing.M, and returns the exit status for the test binary. It is 1 if all tests passed
// but more file descriptors are open than before.
func Run(m interface{ Run() int }) int {
	before := open()
	code := m.Run()
	if after := open(); code == 0 && len(after) > len(before) {
		fmt.Fprintf(os.Stderr, "file descriptors leaked: before %q, after %q\n", before, after)
		code = 1
	}
	return code
}

// open lists the open file descriptors of this process, without those of the Go runtime's poller.
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
