package cluster

import (
	"net/http"
	"sync"
	"time"
)

// Clock is the difference of another clock to this machine's: it is ahead by at least Least and by at most Most. If it
// is behind, they are negative.
type Clock struct{ Least, Most time.Duration }

// ClockOf computes a Clock from the other clock's time, which has that precision, and from this machine's times before
// and after it was read.
func ClockOf(its time.Time, precision time.Duration, asked, answered time.Time) Clock {
	return Clock{Least: its.Sub(answered), Most: its.Add(precision).Sub(asked)}
}

// Ahead returns by how much the clock is ahead at least, negative if it is behind, 0 if both may agree.
func (c Clock) Ahead() time.Duration {
	switch {
	case c.Least > 0:
		return c.Least
	case c.Most < 0:
		return c.Most
	}
	return 0
}

// clocks computes the API server's clock from the header Date of its answers (RFC 9110, 6.6.1), which has whole
// seconds.
type clocks struct {
	mu    sync.Mutex
	best  Clock
	known bool
}

// wrap returns a transport that passes the answers to note.
func (c *clocks) wrap(next http.RoundTripper) http.RoundTripper { return &noting{next, c} }

// noting is a transport that passes answers to clocks.
type noting struct {
	http.RoundTripper
	to *clocks
}

// RoundTrip sends a request.
func (n *noting) RoundTrip(r *http.Request) (*http.Response, error) {
	asked := time.Now()
	response, err := n.RoundTripper.RoundTrip(r)
	if err == nil {
		n.to.note(response.Header.Get("Date"), asked, time.Now())
	}
	return response, err
}

// WrappedRoundTripper lets client-go find the transport below.
func (n *noting) WrappedRoundTripper() http.RoundTripper { return n.RoundTripper }

// note keeps the most exact result, which is that of the fastest answer.
func (c *clocks) note(date string, asked, answered time.Time) {
	its, err := http.ParseTime(date)
	if err != nil {
		return
	}
	found := ClockOf(its, time.Second, asked, answered)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known || found.Most-found.Least < c.best.Most-c.best.Least {
		c.best, c.known = found, true
	}
}

// Clock returns the API server's clock, as far as its answers so far show it.
func (c *Cluster) Clock() (clock Clock, known bool) {
	c.clocks.mu.Lock()
	defer c.clocks.mu.Unlock()
	return c.clocks.best, c.clocks.known
}
