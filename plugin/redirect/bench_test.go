package redirect

import (
	"fmt"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// manyPrefixes and manyPorts return lists as long as in the annotations of large clusters. No two members are
// neighbours.
func manyPrefixes(n int) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf("10.%d.%d.0/25", i/256, i%256)
		if i%2 == 1 {
			items[i] = fmt.Sprintf("2001:db8:%x::/48", i)
		}
	}
	return strings.Join(items, ",")
}

func manyPorts(n int) string {
	items := make([]string, n)
	for i := range items {
		items[i] = portText(uint16(1024 + 2*i))
	}
	return strings.Join(items, ",")
}

func largePod() (Pod, Policy) {
	return meshPod(annotate(annotation.IncludeOutboundIPRanges, manyPrefixes(5000), annotation.ExcludeOutboundPorts,
		manyPorts(1000)))
}

// The number of rules does not grow with the length of a list.
func TestListsAreSets(t *testing.T) {
	pod, policy := largePod()
	large, err := Decide(pod, policy)
	if err != nil {
		t.Fatal(err)
	}
	short := spec(t, `{"includeOutboundIPRanges":"10.0.0.0/8,fd00::/8","excludeOutboundPorts":"25"}`)
	if got, want := lines(large.Spec), lines(short); got != want {
		t.Errorf("%d lines with long lists, %d with short ones", got, want)
	}
	if n := len(large.Spec.IncludeOutboundIPRanges.list); n != 5000 ||
		len(large.Spec.ExcludeOutboundPorts.List()) != 1000 {
		t.Errorf("%d prefixes, %d ports", n, len(large.Spec.ExcludeOutboundPorts.List()))
	}
	checkRules(t, large.Spec)
}

func lines(s Spec) int { return strings.Count(s.RuleSet().String(), "\n") }

func BenchmarkDecide(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchmarkDecide(b, noAnnotations) })
	b.Run("mesh", func(b *testing.B) { benchmarkDecide(b) })
	b.Run("large", func(b *testing.B) {
		benchmarkDecide(b, func(p *Pod, policy *Policy) { *p, *policy = largePod() })
	})
}

func benchmarkDecide(b *testing.B, edits ...edit) {
	pod, policy := meshPod(edits...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decide(pod, policy); err != nil {
			b.Fatal(err)
		}
	}
}

// eachSpec runs a benchmark for the settings that influence its time.
func eachSpec(b *testing.B, run func(*testing.B, Spec)) {
	pod, policy := largePod()
	large, err := Decide(pod, policy)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		spec Spec
	}{
		{"default", DefaultSpec()}, {"tproxy-lists", spec(b, profiles["tproxy-lists"])}, {"large", large.Spec},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			run(b, c.spec)
		})
	}
}

func BenchmarkRuleSet(b *testing.B) {
	eachSpec(b, func(b *testing.B, s Spec) {
		for b.Loop() {
			_ = s.RuleSet()
		}
	})
}

func BenchmarkString(b *testing.B) {
	eachSpec(b, func(b *testing.B, s Spec) {
		set := s.RuleSet()
		for b.Loop() {
			_ = set.String()
		}
	})
}

func BenchmarkHash(b *testing.B) {
	eachSpec(b, func(b *testing.B, s Spec) {
		set := s.RuleSet()
		for b.Loop() {
			_ = set.Hash()
		}
	})
}

func BenchmarkParseSpec(b *testing.B) {
	raw := []byte(documented)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseSpec(raw); err != nil {
			b.Fatal(err)
		}
	}
}
