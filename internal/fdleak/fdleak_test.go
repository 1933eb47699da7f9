package fdleak

import (
	"os"
	"testing"
	"time"
)

// tests are tests that end with a status, and do something before.
type tests func() int

func (t tests) Run() int { return t() }

// What stays open is found. What is closed a little later, as by an HTTP client, is no leak.
func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		closed   func(*os.File)
		status   int
		patience time.Duration
		want     int
	}{
		"closed":          {func(f *os.File) { _ = f.Close() }, 0, time.Minute, 0},
		"closed later":    {func(f *os.File) { time.AfterFunc(5*pause, func() { _ = f.Close() }) }, 0, time.Minute, 0},
		"open":            {func(*os.File) {}, 0, 5 * pause, 1},
		"open, and red":   {func(*os.File) {}, 3, time.Minute, 3},
		"closed, and red": {func(f *os.File) { _ = f.Close() }, 3, time.Minute, 3},
	} {
		file, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		if got := run(tests(func() int {
			if file, err = os.Open(os.DevNull); err != nil {
				t.Fatal(err)
			}
			c.closed(file)
			return c.status
		}), c.patience); got != c.want {
			t.Errorf("%s: status %d, want %d", name, got, c.want)
		}
		_ = file.Close()
	}
}
