package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/fdleak"
	"github.com/istio-pod-network/controller/internal/watch/exhausted"
)

func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

// A directory that inotify cannot watch is reported once, with a remedy, and is watched as soon as possible.
func TestExhausted(t *testing.T) {
	exhausted.Run(t, func(t *testing.T, lift func()) {
		var said []string
		d := New(func(err error) { said = append(said, err.Error()) })
		defer d.Close()
		dirs := []string{t.TempDir(), t.TempDir()}
		for range 3 {
			for _, dir := range append(dirs, filepath.Join(dirs[0], "gone")) {
				if d.Add(dir) {
					t.Errorf("%s is watched", dir)
				}
			}
		}
		if len(said) != 1 || !strings.Contains(said[0], "raise the node's sysctl fs.inotify.max_user_") {
			t.Errorf("said %q", said)
		}
		if !d.Lacking() {
			t.Error("nothing is lacking")
		}
		d.Remove(dirs[1])
		lift()
		if !d.Add(dirs[0]) || d.Lacking() {
			t.Error("it is not watched, although it can be")
		}
		if err := os.WriteFile(filepath.Join(dirs[0], "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if e := <-d.Events(); filepath.Base(e.Name) != "file" {
			t.Errorf("%v", e)
		}
	})
}
