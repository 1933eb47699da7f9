package cluster

import (
	"os"
	"path/filepath"
	"testing"
)

// The first of several running clusters saves the settings and the last one restores them. A cluster that was killed
// leaves the file, and the next one is the first again.
func TestLockSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.json")
	lock := func(wantFirst bool) *os.File {
		t.Helper()
		file, first, err := lockSettings(path)
		if err != nil {
			t.Fatal(err)
		}
		if first != wantFirst {
			t.Errorf("first is %t", first)
		}
		return file
	}
	killed := lock(true)
	if err := save(killed); err != nil {
		t.Fatal(err)
	}
	killed.Close()
	a := lock(true)
	if info, err := a.Stat(); err != nil || info.Size() == 0 {
		t.Errorf("the file of the cluster that was killed: %v %v", info, err)
	}
	second := make(chan *os.File)
	go func() {
		file, _, err := lockSettings(path) // waits until the first has saved
		if err != nil {
			t.Error(err)
		}
		second <- file
	}()
	if err := os.Remove(path); err != nil { // as the last cluster does
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
		t.Errorf("the second cluster has locked a file that was removed: %v", err)
	}
}
