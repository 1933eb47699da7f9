package agent

import (
	"testing"
	"time"
)

// /metrics has each watch from the beginning, and shows when it is away and when it works.
func TestWatchesInMetrics(t *testing.T) {
	var since time.Time
	m := newMetrics()
	m.showWatches(watches{{"pods", func() (time.Time, error) { return since, nil }}})
	away := func() float64 {
		families, err := m.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == prefix+"watch_away_seconds" && f.GetMetric()[0].GetLabel()[0].GetValue() == "pods" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatal("there is no such metric")
		return 0
	}
	if is := away(); is != 0 {
		t.Errorf("a watch that stands has been away for %g s", is)
	}
	since = time.Now()
	if away() == 0 {
		t.Error("a watch that has just ended stands by what is said")
	}
}
