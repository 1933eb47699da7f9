package redirect

import "sort"

// sortBy sorts like slices.SortFunc. That function would add 9 kB to the plugin's binary for each type: see package
// deps.
func sortBy[E any](list []E, order func(a, b E) int) {
	sort.Sort(sorter{len(list), func(i, j int) bool { return order(list[i], list[j]) < 0 },
		func(i, j int) { list[i], list[j] = list[j], list[i] }})
}

// sorter implements sort.Interface with two functions.
type sorter struct {
	length int
	less   func(i, j int) bool
	swap   func(i, j int)
}

func (s sorter) Len() int           { return s.length }
func (s sorter) Less(i, j int) bool { return s.less(i, j) }
func (s sorter) Swap(i, j int)      { s.swap(i, j) }
