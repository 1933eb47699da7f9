package e2e

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/rows"
)

// scenarios are the rows of the table that is printed at the end.
var scenarios []*scenario

// scenario is one row of the table.
type scenario struct {
	name     string
	outcome  string
	took     time.Duration
	attempts int // attempts of apps in mesh pods to reach the peer
	leaks    int // attempts that bypassed the sidecar
	resets   int // attempts that ended in a reset, because a process died with the connection open
	control  int // connections of apps without a sidecar that the peer has seen
	notes    []string
}

// report prints the table, and updates the page in rowsEnv.
func report(out io.Writer) {
	var list []rows.Row
	for _, s := range scenarios {
		list = append(list, rows.Row{s.name, s.outcome, fmt.Sprintf("%.1f s", s.took.Seconds()), count(s.attempts),
			of(s, s.leaks), of(s, s.resets), count(s.control), strings.Join(s.notes, "; ")})
	}
	fmt.Fprintln(out)
	err := rows.Write(out, list)
	if page := os.Getenv(rowsEnv); err == nil && page != "" {
		err = rows.Update(page, list)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// count returns a cell. It is "-" if a scenario does not count this.
func count(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// of returns a cell. It is "-" if no app has attempted anything.
func of(s *scenario, n int) string {
	if s.attempts == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
