package ctl

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal returns both ends of a pseudoterminal: what is written to far can be read from near.
func terminal(t *testing.T) (near, far *os.File) {
	t.Helper()
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	number, err := unix.IoctlGetInt(int(near.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(near.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	return near, far
}

// Output to a terminal has colours unless NO_COLOR is set. Output for programs never has.
func TestColours(t *testing.T) {
	near, far := terminal(t)
	for _, test := range []struct {
		args, noColor string
		want          bool
	}{
		{"trace -f explain/testdata/injected.yaml --to 10.96.0.10:80", "", true},
		{"trace -f explain/testdata/injected.yaml --to 10.96.0.10:80", "1", false},
		{"trace -f explain/testdata/injected.yaml --to 10.96.0.10:80 -o json", "", false},
		{"version --client", "1", false},
	} {
		written := make(chan string)
		go func() { // until the mark that follows all output
			var text strings.Builder
			for part := make([]byte, 4096); !strings.Contains(text.String(), "the end"); {
				n, err := near.Read(part)
				if err != nil {
					break
				}
				text.Write(part[:n])
			}
			written <- text.String()
		}()
		environ := map[string]string{"TERM": "xterm", "NO_COLOR": test.noColor}
		p := process{append([]string{own}, strings.Fields(test.args)...), strings.NewReader(""), far, far,
			func(key string) string { return environ[key] }}
		status := p.run()
		if _, err := far.WriteString("the end\n"); err != nil {
			t.Fatal(err)
		}
		if text := <-written; status != 0 || strings.Contains(text, "\x1b[") != test.want || len(text) < 20 {
			t.Errorf("%s, NO_COLOR=%s: status %d: %q", test.args, test.noColor, status, text)
		}
	}
}
