package record

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// writerEnv is the environment variable that turns the test binary into a writer. Its value is the directory.
const writerEnv = "RECORD_TEST_WRITER"

// writeForever replaces two records as fast as it can until it is killed. It alternates between small and large ones,
// so that a mixture of two would not look complete.
func writeForever(s Store) {
	for i := 0; ; i++ {
		for _, id := range []string{"one", "two"} {
			r := of("net", id, "eth0")
			r.DurationMicroseconds = int64(i % 7 * 20000)
			r.Spec = fmt.Appendf(nil, "%q", strings.Repeat("x", int(r.DurationMicroseconds)))
			if err := errors.Join(s.Put(r), s.SetProblem(fmt.Sprint("problem ", i))); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(3)
			}
		}
	}
}

// A plugin that is killed anywhere in Put or SetProblem leaves complete files and at most one temporary file, which GC
// removes later.
func TestKilledWriter(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	const rounds = 25
	seen, temporary, both := 0, 0, false
	for range rounds {
		kill := startWriter(t, s)
		deadline := time.Now().Add(10*time.Millisecond + rand.N(30*time.Millisecond))
		for time.Now().Before(deadline) || !both && time.Since(deadline) < time.Minute { // a busy machine starts it late
			now := whole(t, s)
			seen, both = seen+now, both || now == 4
		}
		kill()
		seen += whole(t, s)
		temporary = len(fileNames(t, s)) - 2
	}
	t.Logf("%d records read, %d temporary files left by %d kills", seen, temporary, rounds)
	if temporary > rounds {
		t.Errorf("%d temporary files after %d kills", temporary, rounds)
	}
	past := time.Now().Add(-2 * time.Hour)
	for _, name := range fileNames(t, s) {
		if err := os.Chtimes(s.Pods()+"/"+name, past, past); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.GC("other", nil); err != nil {
		t.Error(err)
	}
	if all, err := os.ReadDir(s.Dir); err != nil || len(all) != 2 {
		t.Errorf("after GC, beside the records and the problem: %v, %v", all, err)
	}
	if records, errs := s.List(); len(records) != 2 || len(errs) != 0 || len(fileNames(t, s)) != 2 {
		t.Errorf("after GC: %d records, %v, files %q", len(records), errs, fileNames(t, s))
	}
}

// startWriter starts a writer and returns a function that kills it. The test fails if the writer ended before.
func startWriter(t *testing.T, s Store) (kill func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), writerEnv+"="+s.Dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); cmd.ProcessState.Exited() {
			t.Fatalf("the writer ended by itself: %v", err)
		}
	}
}

// whole reads all records by List and by Load, fails the test if one is incomplete, and returns their number.
func whole(t *testing.T, s Store) int {
	t.Helper()
	records, errs := s.List()
	for _, err := range errs {
		t.Fatal(err)
	}
	for _, id := range []string{"one", "two"} {
		r, err := s.Get(id, "eth0")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	for _, r := range records {
		if len(r.Spec) != int(r.DurationMicroseconds)+2 {
			t.Fatalf("torn: %d bytes of %d", len(r.Spec), r.DurationMicroseconds+2)
		}
	}
	return len(records)
}
