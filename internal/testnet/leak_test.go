package testnet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLeaks creates and closes labs: no threads, file descriptors, mounts or directories may remain.
func TestLeaks(t *testing.T) {
	once := func() {
		l := newLab(t, Options{UserNamespace: true})
		p, _ := ProfileNamed("tproxy")
		if err := l.Use(p); err != nil {
			t.Fatal(err)
		}
		l.RunAll()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	once() // the runtime's own threads start with the first lab
	before := census(t)
	for range 5 {
		once()
	}
	for deadline := time.Now().Add(time.Minute); census(t)["labs' threads"] > 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond) // a thread ends a moment after its goroutine
	}
	after := census(t)
	for what, n := range after {
		if n > before[what] {
			t.Errorf("%d %s became %d", before[what], what, n)
		}
	}
}

// census counts what a lab of this process could leave.
func census(t *testing.T) map[string]int {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	prefix := fmt.Sprintf("%s%d-", dirPrefix, os.Getpid())
	count := map[string]int{"mounts": strings.Count(string(mounts), prefix)}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	count["descriptors"] = len(fds)
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	count["directories"] = len(dirs)
	own, _ := os.Readlink("/proc/self/ns/net")
	threads, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, thread := range threads {
		if ns, err := os.Readlink(thread); err == nil && ns != own {
			count["labs' threads"]++
		}
	}
	return count
}
