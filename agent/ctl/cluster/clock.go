package cluster

import (
	"net/http"
	"sync"
	"time"
)

// Clock is what is known of another clock: it is ahead of the one here by at least one of these, and by at most the
// other. Where it is behind, they are negative.
type Clock struct{ Least, Most time.Duration }

// ClockOf reads it off a time that the other one had, of that precision, between two times here.
func ClockOf(its time.Time, precision time.Duration, asked, answered time.Time) Clock {
	return Clock{Least: its.Sub(answered), Most: its.Add(precision).Sub(asked)}
}

// Ahead is by how much it is ahead at the least, negative if it is behind, 0 if the two may agree.
func (c Clock) Ahead() time.Duration {
	switch {
	case c.Least > 0:
		return c.Least
	case c.Most < 0:
		return c.Most
	}
	return 0
}

// clocks reads the API server's clock off the header Date of its answers (RFC 9110, 6.6.1), which has seconds.
type clocks struct {
	mu    sync.Mutex
	best  Clock
	known bool
}

// wrap has answers noted.
func (c *clocks) wrap(next http.RoundTripper) http.RoundTripper { return &noting{next, c} }

// noting is a transport that notes answers.
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

// WrappedRoundTripper is what client-go looks for, to find the transport's own settings.
func (n *noting) WrappedRoundTripper() http.RoundTripper { return n.RoundTripper }

// note keeps what says most: the answer that came fastest.
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

// Clock is that of the API server, as its answers tell it so far.
func (c *Cluster) Clock() (clock Clock, known bool) {
	c.clocks.mu.Lock()
	defer c.clocks.mu.Unlock()
	return c.clocks.best, c.clocks.known
}
