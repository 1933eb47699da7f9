package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/fdleak"
)

func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

// Read ends with any kind of file, and says why there are no contents.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, contents := range map[string]string{"file": "abc", "empty": "", "full": strings.Repeat("x", 10),
		"large": strings.Repeat("x", 11)} {
		await.Must(t, os.WriteFile(path(name), []byte(contents), 0o600))
	}
	await.Must(t, os.Symlink("file", path("link")))
	await.Must(t, os.Symlink("none", path("dangling")))
	await.Must(t, syscall.Mkfifo(path("fifo"), 0o600))
	for _, c := range []struct {
		path, want, problem string
		linked              bool // ReadNoFollow returns an error for it
	}{
		{path("file"), "abc", "", false},
		{path("empty"), "", "", false},
		{path("full"), strings.Repeat("x", 10), "", false},
		{path("link"), "abc", "", true},
		{path("large"), "", "larger than 10 bytes", false},
		{path("fifo"), "", "not a regular file", false},
		{dir, "", "not a regular file", false},
		{"/dev/zero", "", "not a regular file", false},
		{"/proc/self/status", "", "larger than 10 bytes", false}, // its size is reported as 0
		{path("none"), "", "no such file", false},
		{path("dangling"), "", "no such file", true},
	} {
		data, err := Read(c.path, 10)
		if string(data) != c.want || (err == nil) != (c.problem == "") {
			t.Errorf("%s: %q, %v, want %q or %q", c.path, data, err, c.want, c.problem)
		}
		var failed *fs.PathError
		if err != nil && (!errors.As(err, &failed) || failed.Path != c.path || !strings.Contains(err.Error(), c.problem)) {
			t.Errorf("%s: %v, want %q", c.path, err, c.problem)
		}
		data, err = ReadNoFollow(c.path, 10)
		if c.linked {
			c.want, c.problem = "", "too many levels of symbolic links"
		}
		if string(data) != c.want || err == nil && c.problem != "" || err != nil &&
			!strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s, not followed: %q, %v, want %q or %q", c.path, data, err, c.want, c.problem)
		}
	}
}

// names lists a directory.
func names(t *testing.T, dir string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	await.Must(t, err)
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found
}

// A file that cannot be written completely leaves nothing, and the existing file stays.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path, temp := filepath.Join(dir, "file"), Temp(dir, ".tmp-")
	holds := func(when, want string) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil || string(data) != want || len(names(t, dir)) != 1 {
			t.Errorf("%s: %q, %v, want %q; %q", when, data, err, want, names(t, dir))
		}
	}
	await.Must(t, Replace(path, temp, strings.NewReader("one"), nil))
	holds("new", "one")
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	await.Must(t, os.WriteFile(temp, []byte("left by a killed process"), 0o600))
	await.Must(t, Replace(path, temp, strings.NewReader("two"), func(f *os.File) error { return f.Chmod(0o755) }))
	holds("replaced", "two")
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	refused := errors.New("refused")
	err := Replace(path, temp, strings.NewReader("x"), func(*os.File) error { return refused })
	if !errors.Is(err, refused) {
		t.Error(err)
	}
	holds("attributes refused", "two")
	err = Replace(path, temp, io.MultiReader(strings.NewReader("x"), iotest.ErrReader(refused)), nil)
	if !errors.Is(err, refused) {
		t.Error(err)
	}
	holds("contents torn", "two")
	await.Must(t, os.WriteFile(temp, nil, 0o600))
	if err := Create(temp, strings.NewReader("x"), nil); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	await.Must(t, os.Remove(temp))
	if err := Replace(filepath.Join(path, "below"), temp, strings.NewReader("x"), nil); !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
	holds("not renamed", "two")
	if err := SyncDir(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
