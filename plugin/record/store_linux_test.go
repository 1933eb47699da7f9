package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "not", "yet")}
	want := sample()
	if _, err := s.Get(want.ContainerID, want.IfName); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	if err := s.Delete(want.ContainerID, want.IfName); err != nil {
		t.Errorf("deleting what is absent: %v", err)
	}
	for _, reason := range []string{"first", "replaced"} {
		want.Reason = reason
		put(t, s, want)
		got, err := s.Get(want.ContainerID, want.IfName)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	for range 2 {
		if err := s.Delete(want.ContainerID, want.IfName); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Get(want.ContainerID, want.IfName); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after: %v", err)
	}
}

func TestModes(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "state")}
	put(t, s, of("net", "a", "eth0"))
	for path, want := range map[string]fs.FileMode{
		s.Dir:                          fs.ModeDir | 0o700,
		s.Pods():                       fs.ModeDir | 0o700,
		s.Pods() + "/a-eth0.json":      0o600,
		s.Pods() + "/../../state/pods": fs.ModeDir | 0o700,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	if names := fileNames(t, s); !slices.Equal(names, []string{"a-eth0.json"}) {
		t.Errorf("left behind: %q", names)
	}
}

// A pod may have as many settings as Istio's lists allow, and a record has to hold them.
func TestLargestSpec(t *testing.T) {
	var list []string
	for i := range 5000 {
		list = append(list, fmt.Sprintf("10.%d.%d.0/24,2001:db8:ffff:ffff:ffff:ffff:%x:%x/128", i/256, i%256, i, i))
	}
	r := sample()
	r.Spec = fmt.Appendf(nil, `{"includeOutboundIPRanges":%q}`, strings.Join(list, ","))
	s := Store{Dir: t.TempDir()}
	put(t, s, r)
	if got, err := s.Get(r.ContainerID, r.IfName); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%d bytes of settings do not come back: %v", len(r.Spec), err)
	}
}

func TestReadRefuses(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	valid := string(fixture(t, "v1-redirect.json"))
	drop(t, s, "renamed-eth0.json", valid)
	drop(t, s, "version-eth0.json", string(fixture(t, "v2-other-types.json")))
	drop(t, s, "garbage-eth0.json", "\x00\x01")
	drop(t, s, "empty-eth0.json", "")
	drop(t, s, "giant-eth0.json", strings.Repeat(" ", maxSize)+valid)
	for _, err := range []error{
		os.Mkdir(s.Pods()+"/dir-eth0.json", 0o700),
		os.Symlink("garbage-eth0.json", s.Pods()+"/link-eth0.json"),
		syscall.Mkfifo(s.Pods()+"/fifo-eth0.json", 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]string{
		"renamed": `it holds the record of container "6f1e`,
		"version": "it has record version 2, this program knows version 1",
		"garbage": "invalid character",
		"empty":   "unexpected end of JSON input",
		"giant":   "larger than 4194304 bytes",
		"dir":     "not a regular file",
		"link":    "too many levels of symbolic links",
		"fifo":    "not a regular file",
	} {
		_, err := s.Get(id, "eth0")
		prefix := fmt.Sprintf("reading record %q: ", s.Pods()+"/"+id+"-eth0.json")
		if err == nil || !strings.HasPrefix(err.Error(), prefix+want) {
			t.Errorf("%s: %v, want %s", id, err, want)
		}
		if errors.Is(err, fs.ErrNotExist) || IsVersion(err) != (id == "version") || IsMismatch(err) != (id == "renamed") {
			t.Errorf("%s: wrong class: %v", id, err)
		}
	}
	records, errs := s.List()
	if len(records) != 0 || len(errs) != 8 {
		t.Errorf("listed %d records and %d errors: %v", len(records), len(errs), errs)
	}
}

// A plugin without write permission reports the path, and leaves nothing.
func TestPermissionErrors(t *testing.T) {
	open := t.TempDir()
	s := Store{Dir: filepath.Join(open, "state")}
	put(t, s, of("net", "a", "eth0"))
	asNobody(t, func() {
		for what, err := range map[string]error{
			"put":    s.Put(of("net", "b", "eth0")),
			"mkdir":  Store{Dir: open + "/other"}.Put(of("net", "b", "eth0")),
			"get":    second(s.Get("a", "eth0")),
			"delete": s.Delete("a", "eth0"),
			"gc":     gcError(s),
		} {
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), open) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, errs := s.List(); len(errs) != 1 || !errors.Is(errs[0], fs.ErrPermission) {
			t.Errorf("list: %v", errs)
		}
	})
	if names := fileNames(t, s); !slices.Equal(names, []string{"a-eth0.json"}) {
		t.Errorf("left behind: %q", names)
	}
}

func gcError(s Store) error {
	_, err := s.GC("net", func(string, string) bool { return false })
	return err
}

// asNobody runs f with the file permissions of an unprivileged user. The file system uid belongs to the thread, and the
// kernel removes CAP_DAC_OVERRIDE with it (setfsuid(2), capabilities(7)).
func asNobody(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
	defer syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0)
	if now, _, _ := syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0); now != 65534 {
		t.Fatal("this test needs root")
	}
	f()
}

// Put removes its temporary file on every error.
func TestPutCleansUp(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	if err := os.MkdirAll(s.Pods()+"/a-eth0.json", 0o700); err != nil { // rename(2) cannot replace a directory by a file
		t.Fatal(err)
	}
	if err := s.Put(of("net", "a", "eth0")); err == nil || !strings.Contains(err.Error(), "rename") {
		t.Errorf("%v", err)
	}
	if names := fileNames(t, s); !slices.Equal(names, []string{"a-eth0.json"}) {
		t.Errorf("left behind: %q", names)
	}
	in := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(in, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Store{Dir: in}).Put(sample()); !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), in) {
		t.Errorf("state directory that is a file: %v", err)
	}
}

// A full file system is the most likely error in the middle of a write.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Fatalf("mounting a small tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	s := Store{Dir: dir}
	put(t, s, of("net", "small", "eth0"))
	big := of("net", "big", "eth0")
	big.Spec = fmt.Appendf(nil, "%q", strings.Repeat("x", 1<<20))
	if err := s.Put(big); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing 1 MiB into 64 KiB: %v", err)
	}
	if names := fileNames(t, s); !slices.Equal(names, []string{"small-eth0.json"}) {
		t.Errorf("left behind: %q", names)
	}
}

func TestConcurrentWriters(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "state")} // the directory is missing, so that all of them race to create it
	const writers, rounds = 32, 20
	var running sync.WaitGroup
	for w := range writers {
		running.Go(func() {
			own := of("net", fmt.Sprintf("own%d", w), "eth0")
			for i := range rounds {
				own.DurationMicroseconds = int64(i)
				shared := of("net", "shared", "eth0")
				shared.DurationMicroseconds, shared.Reason = int64(w), strings.Repeat(string(rune('a'+w%26)), 100*w)
				if err := errors.Join(s.Put(own), s.Put(shared)); err != nil {
					t.Error(err)
				}
				if got, err := s.Get(own.ContainerID, "eth0"); err != nil || got.DurationMicroseconds != int64(i) {
					t.Errorf("own record: %d, %v, want %d", got.DurationMicroseconds, err, i)
				}
				if got, err := s.Get("shared", "eth0"); err != nil || len(got.Reason) != int(got.DurationMicroseconds)*100 {
					t.Errorf("shared record is mixed: %v", err)
				}
			}
		})
	}
	running.Wait()
	records, errs := s.List()
	if len(records) != writers+1 || len(errs) != 0 || len(fileNames(t, s)) != writers+1 {
		t.Errorf("%d records, errors %v, files %q", len(records), errs, fileNames(t, s))
	}
}

func BenchmarkPut(b *testing.B) {
	s := Store{Dir: b.TempDir()}
	put(b, s, sample())
	for b.Loop() {
		put(b, s, sample())
	}
}

func BenchmarkDeleteAbsent(b *testing.B) {
	s := Store{Dir: b.TempDir()}
	for b.Loop() {
		if err := s.Delete("a", "eth0"); err != nil {
			b.Fatal(err)
		}
	}
}

// Names lists everything in a state directory. If it lacked a name, the agent would not set that directory's mode to
// 0700.
func TestNames(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "state")}
	put(t, s, sample())
	if err := s.SetProblem("no ip6tables-restore"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil || len(entries) != len(Names()) {
		t.Errorf("%v, %v, want %v", entries, err, Names())
	}
	for _, entry := range entries {
		if !slices.Contains(Names(), entry.Name()) {
			t.Errorf("%s is not among %v", entry.Name(), Names())
		}
	}
}
