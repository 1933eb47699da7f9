package install

import "time"

// contest notices that somebody takes out again and again what a Keeper puts in, and bounds how often the Keeper does:
// a primary that restores its file on every event would otherwise keep half a processor busy for ever.
type contest struct {
	burst  int         // so many repairs are made at once; 0: defaultBurst
	recent []time.Time // of the last of them
	wait   time.Duration
	next   time.Time // when the next repair may be made
}

const (
	defaultBurst  = 10
	burstWithin   = 10 * time.Second
	firstWait     = time.Second
	longestWait   = 8 * time.Second
	contestedLook = 100 * time.Millisecond // between two looks while it goes on
)

// goesOn reports whether repairs have to wait.
func (c *contest) goesOn() bool { return c.wait > 0 }

// mayRepair reports whether a repair may be made. The contest is over when none was necessary for a while.
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
