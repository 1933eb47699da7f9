package e2e

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// scenarios is what the table at the end is made of.
var scenarios []*scenario

// scenario is one row.
type scenario struct {
	name     string
	outcome  string
	took     time.Duration
	attempts int // of apps in mesh pods to reach the peer
	leaks    int // those that went past the sidecar
	resets   int // those that ended in a reset: somebody died with the connection open
	control  int // how often the detector saw an app without a sidecar: it can see
	notes    []string
}

// report prints the table.
func report(out io.Writer) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nscenario\toutcome\ttime\tattempts\tleaks\tresets\tcontrol\tmeasured")
	for _, s := range scenarios {
		fmt.Fprintf(table, "%s\t%s\t%.1f s\t%s\t%s\t%s\t%s\t%s\n", s.name, s.outcome, s.took.Seconds(), count(s.attempts),
			of(s, s.leaks), of(s, s.resets), count(s.control), strings.Join(s.notes, "; "))
	}
	_ = table.Flush()
}

// count leaves a cell empty where a scenario is not about it.
func count(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// of leaves a cell empty where no app has attempted anything.
func of(s *scenario, n int) string {
	if s.attempts == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
