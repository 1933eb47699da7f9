package install

import "time"

// contest detects that somebody repeatedly removes what a Keeper puts in, and limits how often the Keeper repairs it. A
// primary that restores its file on every event would otherwise keep half a processor busy.
type contest struct {
	burst  int         // how many repairs may follow each other without a wait; 0: defaultBurst
	recent []time.Time // the times of the last repairs
	wait   time.Duration
	next   time.Time // when the next repair is allowed
}

const (
	defaultBurst  = 10
	burstWithin   = 10 * time.Second
	firstWait     = time.Second
	longestWait   = 8 * time.Second
	contestedLook = 100 * time.Millisecond // between two passes during a contest
)

// goesOn reports whether there is a contest, so that repairs have to wait.
func (c *contest) goesOn() bool { return c.wait > 0 }

// mayRepair reports whether a repair is allowed now. A contest ends when no repair was necessary for burstWithin.
func (c *contest) mayRepair(now time.Time) bool {
	if c.goesOn() && now.Sub(c.next) > burstWithin {
		c.wait, c.recent, c.next = 0, nil, time.Time{}
	}
	return !now.Before(c.next)
}

// repaired notes that a repair was made.
func (c *contest) repaired(now time.Time) {
	burst := c.burst
	if burst == 0 {
		burst = defaultBurst
	}
	if c.recent = append(c.recent, now); len(c.recent) > burst {
		c.recent = c.recent[1:]
	}
	if c.goesOn() || len(c.recent) == burst && now.Sub(c.recent[0]) < burstWithin {
		c.wait = min(max(2*c.wait, firstWait), longestWait)
		c.next = now.Add(c.wait)
	}
}
