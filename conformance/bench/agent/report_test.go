package main

import "testing"

// Only a budget that is clearly exceeded and does not depend on the machine fails the measurement.
func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		row
		fails bool
	}{
		"within":                        {row{"x", 100, 128, "MiB", exact}, false},
		"what the kernel kills":         {row{"x", 129, 128, "MiB", exact}, true},
		"memory while idle":             {row{"x", 41, 40, "MiB", exact}, true},
		"a little over":                 {row{"x", 65, 60, "MiB", clear}, false},
		"clearly over":                  {row{"x", 76, 60, "MiB", clear}, true},
		"two writes where one would do": {row{"x", 1.002, 1, "", exact}, true},
		"a time":                        {row{"x", 9000, 50, "ms", machines}, false},
		"without a budget":              {row{"x", 9000, 0, "ms", 0}, false},
	} {
		if err := (measurement{}).report([]row{c.row}); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
	}
}
