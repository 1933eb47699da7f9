package install

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"golang.org/x/sys/unix"
)

// A process that a plugin has left, and that has its output open, does not block the installer.
func TestLeftProcess(t *testing.T) {
	defer func(before time.Duration) { leftWithin = before }(leftWithin)
	leftWithin = time.Second
	path := filepath.Join(t.TempDir(), "plugin")
	await.Must(t, os.WriteFile(path, []byte("#!/bin/sh\nsleep 600 &\necho $! >"+path+".left\necho said\n"), 0o755))
	type said struct {
		out []byte
		err error
	}
	done := make(chan said, 1)
	go func() {
		out, err := execute(t.Context(), path, []string{"PATH=" + os.Getenv("PATH")}, nil)
		done <- said{out, err}
	}()
	var s said
	select {
	case s = <-done:
	case <-time.After(time.Minute):
		s.err = errors.New("the installer waits for it")
	}
	left, err := os.ReadFile(path + ".left")
	await.Must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(left)))
	await.Must(t, err)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("the process was not left: %v", err)
	}
	if s.err != nil || string(s.out) != "said\n" {
		t.Errorf("%q, %v", s.out, s.err)
	}
}
