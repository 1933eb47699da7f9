// Package exhausted runs tests in a user namespace of their own, with limits that make the kernel refuse inotify. It is
// not part of any product.
package exhausted

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// env is the environment variable that tells a copy of the test binary which limit is 0.
const env = "EXHAUSTED_INOTIFY"

// limits are the limits of a user namespace in /proc/sys/user (namespaces(7)). Each of them is set to 0 in turn.
var limits = []string{"max_inotify_instances", "max_inotify_watches"}

// Run runs a test once without inotify instances, and once without watches. lift, which run may call once, raises the
// limit again. The calling test must not do anything else.
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
