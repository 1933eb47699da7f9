package output

import (
	"os"
	"testing"
)

// A terminal gets colours unless NO_COLOR is set or the terminal has none. Files and pipes never do.
func TestHasColours(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	read, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range []*os.File{terminal, file, read, pipe} {
			_ = f.Close()
		}
	})
	for _, test := range []struct {
		out     *os.File
		environ map[string]string
		want    bool
	}{
		{terminal, map[string]string{"TERM": "xterm"}, true},
		{terminal, map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false},
		{terminal, map[string]string{"TERM": "xterm", "NO_COLOR": "0"}, false},
		{terminal, map[string]string{"TERM": "xterm", "NO_COLOR": ""}, true}, // https://no-color.org
		{terminal, map[string]string{"TERM": "dumb"}, false},
		{file, map[string]string{"TERM": "xterm"}, false},
		{pipe, map[string]string{"TERM": "xterm"}, false},
	} {
		if got := HasColours(test.out, func(key string) string { return test.environ[key] }); got != test.want {
			t.Errorf("%s, %v: %t", test.out.Name(), test.environ, got)
		}
	}
}
