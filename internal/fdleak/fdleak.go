// Package fdleak fails a package's tests if they leave file descriptors open. The plugin ends soon, but the agent uses
// the same packages for as long as the node is up.
package fdleak

import (
	"fmt"
	"os"
	"time"
)

// patience limits the wait for what is still being closed: an HTTP client closes its connection some time after the
// server has. pause is the time between two looks.
const patience, pause = time.Minute, 20 * time.Millisecond

// Run runs the tests of m, a *testing.M, and returns the exit status for the test binary. It is 1 if all tests passed
// but more file descriptors are open than before, and stay open.
func Run(m interface{ Run() int }) int { return run(m, patience) }

func run(m interface{ Run() int }, patience time.Duration) int {
	before := open()
	code, after := m.Run(), open()
	for end := time.Now().Add(patience); code == 0 && len(after) > len(before) && time.Now().Before(end); after = open() {
		time.Sleep(pause)
	}
	if code == 0 && len(after) > len(before) {
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
