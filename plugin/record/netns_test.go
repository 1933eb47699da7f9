package record

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestCurrentNetNS checks that the identity is that of the calling thread, in the documented form.
func TestCurrentNetNS(t *testing.T) {
	identify := func() NetNS {
		t.Helper()
		n, err := CurrentNetNS()
		if err != nil {
			t.Error(err)
		}
		return n
	}
	own := identify()
	if again := identify(); again != own || strings.Count(string(own), "/") != 2 || !own.HasCookie() {
		t.Errorf("identities %q and %q", own, again)
	}
	link, err := os.Readlink("/proc/thread-self/ns/net") // net:[4026531840]
	if err != nil {
		t.Fatal(err)
	}
	if inode := strings.Trim(link, "net:[]"); !strings.Contains(string(own), "/"+inode+"/") {
		t.Errorf("%q has not the inode number %s", own, inode)
	}
	boot, err := ReadBootID()
	if err != nil || own.Boot() != boot || len(boot) != 36 {
		t.Errorf("%q is not of boot %q, %v", own, boot, err)
	}
	// Two goroutines, kept until both have the answer: at most one of them runs on the thread that /proc/self refers
	// to.
	others, done := make(chan NetNS), make(chan struct{})
	defer close(done)
	for range 2 {
		go func() {
			runtime.LockOSThread() // it is never unlocked, so the thread ends with the goroutine
			if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
				t.Error(err)
			}
			others <- identify()
			<-done
		}()
	}
	seen := map[NetNS]bool{own.WithoutCookie(): true}
	for range 2 {
		n := <-others
		if seen[n.WithoutCookie()] || n.Boot() != boot || !n.HasCookie() {
			t.Errorf("another namespace is %q, this one %q", n, own)
		}
		seen[n.WithoutCookie()] = true
	}
}

func TestNetNS(t *testing.T) {
	for n, want := range map[NetNS]struct {
		boot    BootID
		cookie  bool
		without NetNS
	}{
		"0e1f/4026532290/8193": {"0e1f", true, "0e1f/4026532290/-"},
		"0e1f/4026532290/-":    {"0e1f", false, "0e1f/4026532290/-"},
		"0e1f":                 {"0e1f", false, "0e1f//-"},
		"":                     {"", false, "//-"},
	} {
		if n.Boot() != want.boot || n.HasCookie() != want.cookie || n.WithoutCookie() != want.without {
			t.Errorf("%q: boot %q, cookie %t, without %q", n, n.Boot(), n.HasCookie(), n.WithoutCookie())
		}
	}
}
