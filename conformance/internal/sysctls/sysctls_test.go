package sysctls

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
)

// A cluster and a measurement run at the same time. Each has enough inotify instances, and the last one that ends
// restores what was before the first, whichever that is.
func TestKeep(t *testing.T) {
	k := keeper{filepath.Join(t.TempDir(), "saved.json"), t.TempDir()}
	for _, name := range settings {
		path := filepath.Join(k.proc, name)
		await.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		await.Must(t, os.WriteFile(path, []byte("128\n"), 0o644))
	}
	is := func(when, want string) {
		t.Helper()
		if text, err := os.ReadFile(filepath.Join(k.proc, instances)); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v, want %q", when, text, err, want)
		}
	}
	for _, firstEnds := range []int{0, 1} {
		var releases [2]func() error
		for i := range releases {
			release, err := k.keep()
			await.Must(t, err)
			releases[i] = release
			is("while they run", "65536")
		}
		await.Must(t, releases[firstEnds]())
		is("one has ended", "65536")
		await.Must(t, releases[1-firstEnds]())
		is("both have ended", "128")
	}
}

// The first of several running programs saves the settings and the last one restores them. One that was killed leaves
// the file, and the next one is the first again.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.json")
	locked := func(wantFirst bool) *os.File {
		t.Helper()
		file, first, err := lock(path)
		if err != nil {
			t.Fatal(err)
		}
		if first != wantFirst {
			t.Errorf("first is %t", first)
		}
		return file
	}
	killed := locked(true)
	if err := (keeper{proc: "/proc/sys"}).save(killed); err != nil {
		t.Fatal(err)
	}
	killed.Close()
	a := locked(true)
	if info, err := a.Stat(); err != nil || info.Size() == 0 {
		t.Errorf("the file of the program that was killed: %v %v", info, err)
	}
	second := make(chan *os.File)
	go func() {
		file, _, err := lock(path) // waits until the first has saved
		if err != nil {
			t.Error(err)
		}
		second <- file
	}()
	if err := os.Remove(path); err != nil { // as the last program does
		t.Fatal(err)
	}
	a.Close()
	b := <-second
	defer b.Close()
	opened, err := b.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if there, err := os.Stat(path); err != nil || !os.SameFile(opened, there) {
		t.Errorf("the second program has locked a file that was removed: %v", err)
	}
}
