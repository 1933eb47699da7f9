package cluster

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// The header Date shows the server's clock, as exactly as seconds and the time of the request allow.
func TestClock(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"right": 0, "ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", "none")
				if r.URL.Path == "/dated" {
					w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
				}
			}))
			defer server.Close()
			var c Cluster
			client := http.Client{Transport: c.clocks.wrap(http.DefaultTransport)}
			for _, path := range []string{"/", "/dated"} {
				if _, known := c.Clock(); known {
					t.Error("a clock is known before anything has told it")
				}
				response, err := client.Get(server.URL + path)
				if err != nil {
					t.Fatal(err)
				}
				_ = response.Body.Close()
			}
			clock, known := c.Clock()
			if !known || clock.Least > ahead || clock.Most < ahead {
				t.Errorf("%+v, %v, want %s in it", clock, known, ahead)
			}
		})
	}
}

// The faster of two answers counts. A difference that may be none is reported as none.
func TestClockOf(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var c clocks
	at := func(ahead time.Duration) string { return now.Add(ahead).Format(http.TimeFormat) }
	c.note(at(time.Minute), now, now.Add(10*time.Second))
	c.note(at(time.Minute), now, now.Add(time.Second))
	c.note(at(time.Minute), now, now.Add(20*time.Second))
	if want := (Clock{59 * time.Second, 61 * time.Second}); c.best != want || c.best.Ahead() != 59*time.Second {
		t.Errorf("%+v, want %+v", c.best, want)
	}
	for want, ahead := range map[time.Duration]time.Duration{0: 0, -59 * time.Second: -time.Minute} {
		if got := ClockOf(now.Add(ahead), time.Second, now, now); got.Ahead() != want {
			t.Errorf("%s: %s, want %s", ahead, got.Ahead(), want)
		}
	}
}
