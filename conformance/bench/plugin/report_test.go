package main

import (
	"runtime"
	"slices"
	"testing"
	"time"
)

// took returns a row whose runs took these times in milliseconds.
func took(s spec, times ...float64) *row {
	r := &row{spec: s}
	for _, t := range times {
		r.samples = append(r.samples, sample{wall: time.Duration(t * float64(time.Millisecond))})
	}
	return r
}

// Only a budget that is clearly exceeded and does not depend on the kernel fails the measurement.
func TestVerdict(t *testing.T) {
	mesh, outside := meshGroup("nftables"), groups(nil)[3][0]
	echo := took(spec{name: echoAdd}, 1, 1, 1)
	const small = maxBinary
	for name, c := range map[string]struct {
		row    *row
		binary int64
		over   bool
		fails  []string
	}{
		"within":                       {took(mesh[0], 1.9, 2, 2.1), small, false, nil},
		"a little over":                {took(mesh[0], 2.8, 2.8, 2.8), small, true, nil},
		"clearly over":                 {took(mesh[0], 3.2, 3.2, 3.2), small, true, []string{"ADD mesh, nftables: wall"}},
		"on a busy machine":            {took(mesh[0], 2, 3.2, 90), small, true, nil},
		"outside the mesh":             {took(outside, 2, 2, 2), small, true, []string{"ADD outside the mesh: wall"}},
		"what the kernel decides":      {took(mesh[2], 6, 6, 6), small, true, nil},
		"a binary that is a byte over": {took(mesh[0], 2), small + 1, false, []string{"size of the binary"}},
		"a program": {&row{spec: mesh[0], traced: traced{Programs: []string{"nft"}}}, small, true,
			[]string{"ADD mesh, nftables: programs>0"}},
		"memory": {&row{spec: mesh[2], traced: traced{PeakKiB: maxPeakKiB + 1}}, small, true,
			[]string{"DEL with rules, nftables: memory"}},
	} {
		c.row.base = echoAdd
		rep := newReport(options{}, []*row{echo, c.row}, map[string]int64{pluginName: c.binary})
		fails, err := rep.verdict()
		if err != nil || !slices.Equal(fails, c.fails) || len(rep.Rows[1].Over) > 0 != c.over {
			t.Errorf("%s: fails %q, %v; over %q", name, fails, err, rep.Rows[1].Over)
		}
	}
}

// If a burst's calls take all of the processors' time, the processors are the limit.
func TestBusy(t *testing.T) {
	cpus := time.Duration(runtime.NumCPU())
	half := cpus * time.Second / 2
	calls := []sample{{wall: time.Second, cpu: half}, {wall: 2 * time.Second, cpu: half}}
	if part := busy(calls); part != 0.5 {
		t.Errorf("%f of the processors' time, want 0.5", part)
	}
}

// The text about a burst has the processor time of the same call alone, and that of echo.
func TestBurst(t *testing.T) {
	both := bursts([]string{"nftables"}, 64)
	var rows []*row
	for _, r := range []struct {
		spec
		cpu time.Duration
	}{{groups(nil)[1][0], 2}, {meshGroup("nftables")[0], 4}, {both[0], 3}, {both[1], 5}} {
		rows = append(rows, &row{spec: r.spec, samples: []sample{{cpu: r.cpu * time.Millisecond}}, busy: []float64{0.9}})
	}
	lines := newReport(options{}, rows, nil).Rows
	for i, want := range map[int]string{
		2: "64 x echo ADD: the calls take 90 % of the processors' time, 3.00 ms each; one alone 2.00",
		3: "64 x ADD mesh, nftables: the calls take 90 % of the processors' time, 5.00 ms each; one alone 4.00, one that " +
			"only echoes 3.00",
	} {
		if got := lines[i].burst(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
