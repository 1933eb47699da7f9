package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// Budgets that are not ratios.
const (
	maxBinary  = 4_500_000 // bytes, stripped
	maxPeakKiB = 10 << 10  // of one call
)

// margin is the factor by which a ratio of times may exceed its budget before the measurement fails. The ratio of the
// fastest runs has to exceed the budget, too: other work on the machine adds least to these.
const margin = 1.25

// report is everything that is printed. As JSON it is the output of -json.
type report struct {
	Kernel string           `json:"kernel"`
	CPU    string           `json:"cpu"`
	CPUs   int              `json:"cpus"`
	Go     string           `json:"go"`
	Runs   int              `json:"runs"`
	Bursts int              `json:"bursts"`
	Sizes  map[string]int64 `json:"binaryBytes"`
	Rows   []line           `json:"rows"`
}

// line is one row. Times are in milliseconds.
type line struct {
	Name     string   `json:"name"`
	WallP0   float64  `json:"wallP0"`
	WallP50  float64  `json:"wallP50"`
	WallP99  float64  `json:"wallP99"`
	CPUP50   float64  `json:"cpuP50"`
	Ratio    float64  `json:"ratio,omitempty"`  // of the wall-clock p50, to that of Base
	Base     string   `json:"base,omitempty"`   // the row for the ratio
	Budget   float64  `json:"budget,omitempty"` // largest ratio
	PeakKiB  int      `json:"peakKiB,omitempty"`
	Programs []string `json:"programs,omitempty"`
	Syscalls int      `json:"syscalls,omitempty"`
	Busy     float64  `json:"busy,omitempty"`    // of a burst: the share of the processors' time, median
	Alone    float64  `json:"alone,omitempty"`   // of a burst: the CPU p50 of the same call alone
	Echoing  float64  `json:"echoing,omitempty"` // of a burst: the CPU p50 of echo in a burst of the same size
	Over     []string `json:"over,omitempty"`    // exceeded budgets
	Fails    []string `json:"fails,omitempty"`   // those of Over that fail the measurement
	Error    string   `json:"error,omitempty"`
}

func newReport(opts options, rows []*row, sizes map[string]int64) report {
	rep := report{Kernel: kernel(), CPU: cpuModel(), CPUs: runtime.NumCPU(), Go: runtime.Version(),
		Runs: opts.n, Bursts: opts.rounds, Sizes: sizes}
	medians, fastest, cpu := map[string]float64{}, map[string]float64{}, map[string]float64{}
	for _, r := range rows {
		l := newLine(r)
		medians[r.name], fastest[r.name], cpu[r.name] = l.WallP50, l.WallP0, l.CPUP50
		if r.alone != "" {
			l.Alone, l.Echoing = cpu[r.alone], cpu[r.base]
		}
		if base := medians[r.base]; base > 0 {
			l.Ratio, l.Base = l.WallP50/base, r.base
		}
		l.Budget = r.budget
		if l.Budget > 0 && l.Ratio > l.Budget {
			l.Over = append(l.Over, "wall")
			if !r.kernels && l.Ratio > l.Budget*margin && l.WallP0 > l.Budget*fastest[r.base] {
				l.Fails = append(l.Fails, "wall")
			}
		}
		rep.Rows = append(rep.Rows, l)
	}
	return rep
}

func newLine(r *row) line {
	l := line{Name: r.name, PeakKiB: r.traced.PeakKiB, Programs: r.traced.Programs, Syscalls: r.traced.Syscalls}
	if r.err != nil {
		l.Error = strings.Join(strings.Fields(r.err.Error()), " ")
	}
	l.WallP0 = quantile(r.samples, 0, func(s sample) time.Duration { return s.wall })
	l.WallP50 = quantile(r.samples, 0.50, func(s sample) time.Duration { return s.wall })
	l.WallP99 = quantile(r.samples, 0.99, func(s sample) time.Duration { return s.wall })
	if busy := slices.Sorted(slices.Values(r.busy)); len(busy) > 0 {
		l.Busy = busy[len(busy)/2]
	}
	l.CPUP50 = quantile(r.samples, 0.50, func(s sample) time.Duration { return s.cpu })
	if r.programs >= 0 && len(l.Programs) > r.programs {
		l.Over = append(l.Over, fmt.Sprintf("programs>%d", r.programs))
	}
	if r.program == pluginName && l.PeakKiB > maxPeakKiB {
		l.Over = append(l.Over, "memory")
	}
	l.Fails = slices.Clone(l.Over) // counted values have no margin
	return l
}

// quantile returns the nearest-rank quantile in milliseconds, 0 if there are no samples.
func quantile(samples []sample, q float64, of func(sample) time.Duration) float64 {
	if len(samples) == 0 {
		return 0
	}
	values := make([]time.Duration, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	rank := min(int(q*float64(len(values))), len(values)-1)
	return float64(values[rank]) / float64(time.Millisecond)
}

func (rep report) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(rep)
}

func (rep report) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "Linux %s, %d x %s, %s; %d runs, %d bursts; milliseconds\n\n",
		rep.Kernel, rep.CPUs, rep.CPU, rep.Go, rep.Runs, rep.Bursts)
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "case\twall p50\tp99\tCPU p50\tx echo\tbudget\t\tpeak MiB\tprograms\tsyscalls")
	for _, l := range rep.Rows {
		fmt.Fprintln(tab, l.cells())
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nbinary: %s %.2f MB (budget %.2f, %s), echo %.2f MB; budget for peak memory %d MiB\n",
		pluginName, mega(rep.Sizes[pluginName]), mega(maxBinary), okOver(!rep.binaryOver()),
		mega(rep.Sizes[echoName]), maxPeakKiB>>10)
	for _, l := range rep.Rows {
		if len(l.Programs) > 0 {
			fmt.Fprintf(w, "%s executes: %s\n", l.Name, tally(l.Programs))
		}
		if l.Busy > 0 {
			fmt.Fprintln(w, l.burst())
		}
		if l.Error != "" {
			fmt.Fprintf(w, "%s fails: %s\n", l.Name, l.Error)
		}
	}
	return nil
}

// burst says what limits a burst. If the calls take nearly all of the processors' time, none of them waits for a lock,
// a disk or an answer. If a call takes no more processor time than one alone, it does not spin on a lock. The time of a
// plugin that only prints prevResult is that of starting a process.
func (l line) burst() string {
	text := fmt.Sprintf("%s: the calls take %.0f %% of the processors' time, %.2f ms each", l.Name, 100*l.Busy, l.CPUP50)
	if l.Alone > 0 {
		text += fmt.Sprintf("; one alone %.2f", l.Alone)
	}
	if l.Echoing > 0 {
		text += fmt.Sprintf(", one that only echoes %.2f", l.Echoing)
	}
	return text
}

// cells returns the row for the tab writer, with "-" in columns that do not apply.
func (l line) cells() string {
	ratio, budget, verdict, peak, programs, syscalls := "-", "-", "", "-", "-", "-"
	if l.Ratio > 0 {
		ratio = fmt.Sprintf("%.2f", l.Ratio)
	}
	if l.Budget > 0 {
		budget = fmt.Sprintf("%.1f", l.Budget)
		verdict = "ok"
	}
	if len(l.Over) > 0 {
		verdict = "OVER " + strings.Join(l.Over, ",")
	}
	if l.Error != "" {
		verdict = "FAILS"
	}
	if l.Syscalls > 0 {
		peak = fmt.Sprintf("%.1f", float64(l.PeakKiB)/1024)
		programs, syscalls = fmt.Sprint(len(l.Programs)), fmt.Sprint(l.Syscalls)
	}
	return strings.Join([]string{l.Name, fmt.Sprintf("%.2f", l.WallP50), fmt.Sprintf("%.2f", l.WallP99),
		fmt.Sprintf("%.2f", l.CPUP50), ratio, budget, verdict, peak, programs, syscalls}, "\t")
}

// tally counts equal names: "3 x nft, 1 x nsenter".
func tally(names []string) string {
	counts := map[string]int{}
	for _, name := range names {
		counts[name]++
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d x %s", counts[name], name))
	}
	return strings.Join(parts, ", ")
}

func (rep report) binaryOver() bool { return rep.Sizes[pluginName] > maxBinary }

// verdict returns an error if a case could not be measured, otherwise what fails the measurement.
func (rep report) verdict() (failures []string, err error) {
	if rep.binaryOver() {
		failures = append(failures, "size of the binary")
	}
	for _, l := range rep.Rows {
		if l.Error != "" {
			return nil, fmt.Errorf("%s: %s", l.Name, l.Error)
		}
		for _, budget := range l.Fails {
			failures = append(failures, l.Name+": "+budget)
		}
	}
	return failures, nil
}

func okOver(ok bool) string {
	if ok {
		return "ok"
	}
	return "OVER"
}

func mega(bytes int64) float64 { return float64(bytes) / 1e6 }

func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// cpuModel reads /proc/cpuinfo, which has no model name on some architectures.
func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for text := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(text, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
