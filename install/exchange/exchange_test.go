package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/fdleak"
)

func TestMain(m *testing.M) {
	patience = time.Minute
	os.Exit(fdleak.Run(m))
}

// version returns the n-th version of the owner's file. The versions differ in length too.
func version(n int) string {
	return fmt.Sprintf("version %d %s\n", n, strings.Repeat("x", n*37%900))
}

// edit adds a line of ours, once. Contents without a line feed at the end are incomplete.
func edit(existing []byte) ([]byte, error) {
	if !bytes.HasSuffix(existing, []byte("\n")) {
		return nil, errors.New("half-written")
	}
	return append(bytes.TrimSuffix(bytes.Clone(existing), []byte("ours\n")), "ours\n"...), nil
}

// foreign are the ways in which the owner writes the file.
var foreign = map[string]func(t *testing.T, path, contents string){
	"rename": func(t *testing.T, path, contents string) {
		temp := path + ".foreign"
		await.Must(t, os.WriteFile(temp, []byte(contents), 0o644))
		await.Must(t, os.Rename(temp, path))
	},
	"in place": func(t *testing.T, path, contents string) {
		await.Must(t, os.WriteFile(path, []byte(contents), 0o644))
	},
	"slowly": func(t *testing.T, path, contents string) { // opened before the exchange, written and closed after it
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		await.Must(t, err)
		go func() {
			time.Sleep(30 * time.Millisecond)
			_, _ = f.WriteString(contents)
			_ = f.Truncate(int64(len(contents)))
			f.Close()
		}()
	},
}

// raced calls Update for a file with version 1, and race between the read and the exchange. It returns the files that
// are then in the directory.
func raced(t *testing.T, race func(path string)) (changed bool, left map[string]string, err error) {
	t.Helper()
	dir := t.TempDir()
	s := swap{path: filepath.Join(dir, "10-net.conflist")}
	await.Must(t, os.WriteFile(s.path, []byte(version(1)), 0o644))
	old, fresh, err := readEdited(s.path, edit)
	await.Must(t, err)
	await.Must(t, s.write(old, fresh, s.path))
	race(s.path)
	changed, err = s.apply(edit)
	left = map[string]string{}
	entries, failed := os.ReadDir(dir)
	await.Must(t, failed)
	for _, e := range entries {
		data, failed := os.ReadFile(filepath.Join(dir, e.Name()))
		await.Must(t, failed)
		left[e.Name()] = string(data)
	}
	return changed, left, err
}

// An update between our read and our exchange survives, in whichever way it is written.
func TestRace(t *testing.T) {
	for name, write := range foreign {
		t.Run(name, func(t *testing.T) {
			changed, left, err := raced(t, func(path string) { write(t, path, version(2)) })
			if want := map[string]string{"10-net.conflist": version(2) + "ours\n"}; err != nil || !changed ||
				!maps.Equal(left, want) {
				t.Errorf("%t %v %q", changed, err, left)
			}
		})
	}
	t.Run("torn", func(t *testing.T) { // it cannot be edited, so it is put back as it is
		_, left, err := raced(t, func(path string) { foreign["rename"](t, path, "{torn") })
		if err == nil || !maps.Equal(left, map[string]string{"10-net.conflist": "{torn"}) {
			t.Errorf("%v %q", err, left)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		_, left, err := raced(t, func(path string) { await.Must(t, os.Remove(path)) })
		if err == nil || len(left) > 0 {
			t.Errorf("%v %q", err, left)
		}
	})
}

// If an installer is killed directly after an exchange, the next one checks the file that was taken out.
func TestKilledAfterExchange(t *testing.T) {
	for name, test := range map[string]struct {
		out, current string // in the temporary file, and under the name; version 1 was edited
		want         int
	}{
		"nothing foreign":      {version(1), "edited", 1},
		"foreign came out":     {version(2), "edited", 2},
		"and a newer followed": {version(2), version(3), 3},
		"half written, before": {version(2)[:20], version(1), 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "10-net.conflist")
			write := func(path, contents string) {
				t.Helper()
				if err := os.WriteFile(path, []byte(contents), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write(path, version(1))
			edited, err := edit([]byte(version(1)))
			if err != nil {
				t.Fatal(err)
			}
			s := swap{path: path}
			if err := s.write([]byte(version(1)), edited, path); err != nil {
				t.Fatal(err)
			}
			write(s.temp, test.out)
			write(path, strings.ReplaceAll(test.current, "edited", string(edited)))
			unlock, err := Lock(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer unlock()
			if _, err := Update(path, edit); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if want := version(test.want) + "ours\n"; err != nil || string(got) != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("left %q, %v", entries, err)
			}
		})
	}
}

// On a read-only file system, removing a missing file is no error, and removing a file is one.
func TestRemoveReadOnly(t *testing.T) {
	dir := t.TempDir()
	await.Must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { await.Must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	path := filepath.Join(dir, "file")
	await.Must(t, os.WriteFile(path, nil, 0o600))
	await.Must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if err := Remove(filepath.Join(dir, "absent")); err != nil {
		t.Errorf("what is not there: %v", err)
	}
	if err := Remove(path); !errors.Is(err, unix.EROFS) {
		t.Errorf("what is there: %v", err)
	}
}
