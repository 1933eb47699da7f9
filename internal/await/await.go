// Package await waits in tests for what has to happen, and reports what has not happened.
package await

import (
	"testing"
	"time"
)

// pause is the time between two checks: short compared to the wait, and long enough to leave the processor to others.
const pause = 20 * time.Millisecond

// Must ends the test if err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until holds returns true, and ends the test after patience. patience only limits the wait: no test
// passes or fails by how long something took.
func Eventually(t testing.TB, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// Success repeats do until it returns no error, and ends the test with the last error after patience.
func Success(t testing.TB, patience time.Duration, what string, do func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		if err = do(); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
	}
}

// Explain makes a test print say's text when it ends and has failed.
func Explain(t testing.TB, what string, say func() string) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:\n%s", what, say())
		}
	})
}
