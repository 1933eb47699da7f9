package testnet

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The cells of the table in security.md.
const (
	through = "through"
	kept    = "kept"
	noWay   = "–" // the family does not have it
)

// TestIstioLetsThrough compares the table in security.md with what gets around the sidecar under Istio's own rules, and
// is blocked or redirected with rules of our semantics. TestTraffic in package netfilter checks that ours have them.
func TestIstioLetsThrough(t *testing.T) {
	seen := map[string][]string{}
	column := 0
	for _, mode := range []string{"REDIRECT", "TPROXY"} {
		for _, settings := range []map[string]any{
			{"mode": mode, "rerouteVirtualInterfaces": "net1"},
			{"mode": mode, "dnsCapture": true, "excludeInterfaces": "net1"},
		} {
			l := newLab(t, Options{})
			if err := l.AddPassthrough(); err != nil {
				t.Fatal(err)
			}
			p := Profile{mode, settings}
			if err := l.Use(p); err != nil {
				t.Fatal(err)
			}
			applyIstio(t, l, p.settings())
			// A busy kernel may lose a packet, and some attempts need two packets within some milliseconds.
			for range 4 {
				note(seen, column, l.RunAll())
				if err := l.Reset(); err != nil {
					t.Fatal(err)
				}
			}
		}
		column += 2
	}
	table := letThrough(t)
	for way, cells := range seen {
		if want := table[way]; !slices.Equal(want, cells) {
			t.Errorf("security.md says of %s: %q; it is %q", way, want, cells)
		}
	}
	for way := range table {
		if seen[way] == nil {
			t.Errorf("security.md has %s, which nothing tries", way)
		}
	}
}

// note adds results to the cells of the two families, which start at the column.
func note(seen map[string][]string, column int, results []Result) {
	for _, r := range results {
		past := r.Got.Landed == AtPeer || r.Got.Landed == AtApp
		kind, escapes := r.Flow.Kind.attempt()
		switch {
		case escapes && r.Want.Landed != Kept, !escapes && (!past || r.Got.Landed == r.Want.Landed):
			continue
		}
		way := kind.Name
		if r.Flow.From == FromVM {
			way = "vm"
		} else if !escapes {
			way = string(r.Flow.From)
		}
		if seen[way] == nil {
			seen[way] = []string{noWay, noWay, noWay, noWay}
		}
		cell := &seen[way][column]
		if r.Family == IPv6 {
			cell = &seen[way][column+1]
		}
		if past {
			*cell = through
		} else if *cell == noWay {
			*cell = kept
		}
	}
}

// letThrough reads the table: the cells, by the name of the attempt.
func letThrough(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## What Istio's own rules let through\n")
	section, _, _ = strings.Cut(section, "\n## ")
	table := map[string][]string{}
	for line := range strings.Lines(section) {
		if name, found := strings.CutPrefix(line, "| `"); found {
			name, _, _ = strings.Cut(name, "`")
			cells := strings.Split(strings.Trim(line, "| \n"), " | ")
			table[name] = cells[1:]
		}
	}
	return table
}
