// Package await is how tests wait for what has to happen, and how they say that it has not.
package await

import (
	"testing"
	"time"
)

// pause is the time between two looks: short against what is waited for, and long enough to leave it the processor.
const pause = 20 * time.Millisecond

// Must ends the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until it holds. patience only bounds the wait: no test passes or fails by how long something took.
func Eventually(t testing.TB, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// Success repeats something until it returns no error. A test that fails says the last one.
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

// Explain has a test that fails say, when it ends, what a person would look at.
func Explain(t testing.TB, what string, say func() string) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:\n%s", what, say())
		}
	})
}
