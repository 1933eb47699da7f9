package e2e

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/rows"
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

// report prints the table, and writes it into the page that is to have it.
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
