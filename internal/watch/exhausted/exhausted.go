// Package exhausted runs tests where the kernel refuses inotify: in a user namespace of their own, whose limits they
// lower. It is part of no product.
package exhausted

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// env tells a copy of the test which limit is 0 there.
const env = "EXHAUSTED_INOTIFY"

// Limits are those of a user namespace, in /proc/sys/user: of each, none is left (namespaces(7)).
var limits = []string{"max_inotify_instances", "max_inotify_watches"}

// Run runs a test once where there are no instances of inotify, and once where there are no watches. lift, which run
// calls at most once, gives some back. The caller is the test of that name and nothing else.
func Run(t *testing.T, run func(t *testing.T, lift func())) {
	if limit := os.Getenv(env); limit != "" {
		path := filepath.Join("/proc/sys/user", limit)
		set(t, path, "0")
		run(t, func() { set(t, path, "1000") })
		return
	}
	for _, limit := range limits {
		t.Run(limit, func(t *testing.T) {
			c := exec.Command("/proc/self/exe", "-test.run=^"+filepath.Dir(t.Name())+"$", "-test.v")
			c.Env = append(os.Environ(), env+"="+limit)
			root := []syscall.SysProcIDMap{{Size: 1}}
			c.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags: syscall.CLONE_NEWUSER, UidMappings: root, GidMappings: root,
			}
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func set(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}
