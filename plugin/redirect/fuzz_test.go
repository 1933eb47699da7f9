package redirect

import (
	"encoding/json"
	"math/big"
	"net/netip"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// fuzz tests one parser of parsers: it accepts exactly what valid accepts, and parses its own form to the same value.
func fuzz(f *testing.F, name string, valid func(string) bool) {
	for text := range accepted[name] {
		f.Add(text)
	}
	for _, text := range rejected[name] {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parsers[name](text)
		if (err == nil) != valid(text) {
			t.Fatalf("%q: %q, %v, want valid %t", text, got, err, valid(text))
		}
		if err != nil {
			return
		}
		if again, err := parsers[name](got); err != nil || again != got {
			t.Fatalf("%q: its own form %q reads as %q, %v", text, got, again, err)
		}
	})
}

// decimal reports, by other means than the parsers, whether text is a decimal number in a range.
func decimal(text string, low, high int64) bool {
	n, ok := new(big.Int).SetString(text, 10)
	return ok && regexp.MustCompile(`^[0-9]+$`).MatchString(text) && n.Cmp(big.NewInt(low)) >= 0 &&
		n.Cmp(big.NewInt(high)) <= 0
}

// each applies valid to every item of a comma-separated list.
func each(text string, trim bool, valid func(string) bool) bool {
	return !slices.ContainsFunc(strings.Split(text, ","), func(item string) bool {
		if trim {
			item = strings.TrimSpace(item)
		}
		return !valid(item)
	})
}

func validPortsText(text string) bool {
	return strings.TrimSpace(text) == "" || each(text, true, func(item string) bool {
		ends := strings.Split(item, "-")
		if len(ends) == 1 {
			return decimal(item, 0, 65535)
		}
		return len(ends) == 2 && decimal(ends[1], 0, 65535) && decimal(ends[0], 0, decimalOf(ends[1]))
	})
}

func decimalOf(text string) int64 { n, _ := new(big.Int).SetString(text, 10); return n.Int64() }

// FuzzPortSet checks that a set of ports contains exactly those of its members, in the form that the backends rely on.
func FuzzPortSet(f *testing.F) {
	for text := range accepted["ports"] {
		f.Add(text, uint16(80))
	}
	f.Add("1-10,5-20,21,23,30-40", uint16(22))
	f.Fuzz(func(t *testing.T, text string, port uint16) {
		set, err := ParsePorts(text)
		if err != nil || set.All() || set.Empty() {
			return
		}
		holds := func(ranges []PortRange) bool {
			return slices.ContainsFunc(ranges, func(r PortRange) bool { return r.First <= port && port <= r.Last })
		}
		want := false
		for _, item := range strings.Split(text, ",") {
			first, last, found := strings.Cut(strings.TrimSpace(item), "-")
			if !found {
				last = first
			}
			want = want || decimalOf(first) <= int64(port) && int64(port) <= decimalOf(last)
		}
		if got := holds(set.List()); got != want || holds(set.without(port).List()) || !holds(set.union(port).List()) {
			t.Fatalf("%q holds %d: %t, want %t; without it %s, with it %s", text, port, got, want, set.without(port),
				set.union(port))
		}
		for _, list := range [][]PortRange{set.List(), set.without(port).List(), set.union(port).List()} {
			if problem := portsProblem(list); len(list) > 0 && problem != "" {
				t.Fatalf("%q: %v: %s", text, list, problem)
			}
		}
	})
}

func validPrefixesText(text string) bool {
	return text == "" || each(text, false, func(item string) bool {
		_,
			err := netip.ParsePrefix(item)
		return err == nil
	})
}

func FuzzParsePort(f *testing.F) {
	fuzz(f, "port", func(text string) bool { return decimal(text, 1, 65535) })
}

func FuzzParseID(f *testing.F) {
	fuzz(f, "id", func(text string) bool { return decimal(text, 0, 1<<32-2) })
}

func FuzzParseProxyUID(f *testing.F) {
	fuzz(f, "proxyUID", func(text string) bool { return decimal(text, 1, 1<<32-2) })
}

func FuzzParseMode(f *testing.F) {
	fuzz(f, "mode", regexp.MustCompile(`\A(REDIRECT|TPROXY|NONE)\z`).MatchString)
}

func FuzzParseSelection(f *testing.F) {
	fuzz(f, "selection", regexp.MustCompile(`\A(injected|annotated)\z`).MatchString)
}

func FuzzParseBool(f *testing.F) {
	fuzz(f, "bool", regexp.MustCompile(`\A(true|false)\z`).MatchString)
}

func FuzzParsePorts(f *testing.F) {
	fuzz(f, "ports", func(text string) bool { return text == "*" || validPortsText(text) })
}

func FuzzParsePortList(f *testing.F) { fuzz(f, "portList", validPortsText) }

func FuzzParseExcludeInbound(f *testing.F) { fuzz(f, "inbound", validPortsText) }

func FuzzParsePrefixes(f *testing.F) {
	fuzz(f, "prefixes", func(text string) bool { return text == "*" || validPrefixesText(text) })
}

func FuzzParsePrefixList(f *testing.F) { fuzz(f, "prefixList", validPrefixesText) }

func validGroupsText(text string) bool {
	return strings.TrimSpace(text) == "" || each(text, true, func(item string) bool { return decimal(item, 0, 1<<32-2) })
}

func FuzzParseGroups(f *testing.F) {
	fuzz(f, "groups", func(text string) bool { return strings.TrimSpace(text) == "*" || validGroupsText(text) })
}

func FuzzParseGroupList(f *testing.F) { fuzz(f, "groupList", validGroupsText) }

func FuzzParseInterfaces(f *testing.F) {
	name := regexp.MustCompile(`\A([A-Za-z0-9._:@-]{1,15}|[A-Za-z0-9._:@-]{1,14}\*)\z`)
	fuzz(f, "interfaces", func(text string) bool {
		return strings.TrimSpace(text) == "" ||
			each(text, true, func(item string) bool { return name.MatchString(item) && item != "." && item != ".." })
	})
}

// FuzzInterfaceSet checks that a set of interfaces matches exactly the names of its members.
func FuzzInterfaceSet(f *testing.F) {
	for text := range accepted["interfaces"] {
		f.Add(text, "br-0")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		set, err := ParseInterfaces(text)
		if err != nil || name == "" || strings.TrimSpace(text) == "" {
			return
		}
		holds := func(items []string) (n int) {
			for _, item := range items {
				item = strings.TrimSpace(item)
				if ok := item == name || item[len(item)-1] == '*' && strings.HasPrefix(name, item[:len(item)-1]); ok {
					n++
				}
			}
			return n
		}
		if got, want := holds(set), holds(strings.Split(text, ",")); got > 1 || (got > 0) != (want > 0) {
			t.Fatalf("%q holds %q %d times, want %d", text, name, got, want)
		}
	})
}

// FuzzPrefixSet checks that a set of prefixes contains exactly the addresses of its members.
func FuzzPrefixSet(f *testing.F) {
	for text := range accepted["prefixes"] {
		f.Add(text, "10.1.2.3")
	}
	f.Add("10.0.0.0/8,10.0.0.0/7,fd00::/8", "11.0.0.1")
	f.Add("::/0,::1/128", "::1")
	f.Fuzz(func(t *testing.T, text, address string) {
		set, err := ParsePrefixes(text)
		addr, bad := netip.ParseAddr(address)
		if err != nil || bad != nil || set.All() || text == "" {
			return
		}
		var want, got bool
		for _, item := range strings.Split(text, ",") {
			want = want || netip.MustParsePrefix(item).Contains(addr)
		}
		for _, family := range Families {
			list := set.Of(family)
			for i, p := range list {
				got = got || p.Contains(addr)
				named := p.Addr().IsLoopback() && i > 0 && !list[i-1].Addr().IsLoopback() // an explicit loopback prefix is kept
				if i > 0 && list[i-1].Overlaps(p) && !named {
					t.Fatalf("%q: %v overlaps %v", text, list[i-1], p)
				}
			}
		}
		if got != want {
			t.Fatalf("%q holds %s: %t, want %t", text, addr, got, want)
		}
	})
}

func FuzzParseGlobs(f *testing.F) {
	for _, pattern := range []string{"kube-*", "[a-z]", "[", `a\`, "", "*?", "[^a-c]x", "a["} {
		f.Add(pattern, "kube-system")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		globs, err := ParseGlobs("key", []string{pattern})
		if err != nil {
			if !IsInvalid(err) {
				t.Fatal(err)
			}
			return
		}
		// An accepted pattern must be valid for every name: otherwise a namespace would silently not be excluded.
		matched, err := path.Match(pattern, name)
		if err != nil || globs.Match(name) != matched {
			t.Fatalf("%q on %q: %v", pattern, name, err)
		}
	})
}

func FuzzParseSpec(f *testing.F) {
	for _, raw := range profiles {
		f.Add([]byte(raw))
	}
	f.Add([]byte(documented))
	for name, sample := range samples {
		for _, literal := range slices.Concat(sample.invalid, sample.wrongType) {
			f.Add([]byte(`{"` + name + `":` + literal + `}`))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := ParseSpec(raw)
		if err != nil {
			if !IsInvalid(err) || printed(t, got) != printed(t, Spec{}) {
				t.Fatalf("%s: %v, %s", raw, err, printed(t, got))
			}
			return
		}
		checkRules(t, got)
		if again := spec(t, printed(t, got)); printed(t, again) != printed(t, got) {
			t.Fatalf("%s comes back as %s", printed(t, got), printed(t, again))
		}
	})
}

// checkRules checks properties of the rules of every valid Spec.
func checkRules(t *testing.T, s Spec) {
	t.Helper()
	set := s.RuleSet()
	if found := problems(set); len(found) > 0 {
		t.Fatalf("%s: %s\n%s", printed(t, s), strings.Join(found, "; "), set)
	}
	if (set.String() == "") != (s.Mode == ModeNone) || set.String() != s.RuleSet().String() ||
		set.Hash() != s.RuleSet().Hash() {
		t.Fatalf("%s: rules\n%s", printed(t, s), set)
	}
}

// FuzzDecide decides about a pod as the agent sends it, with one more annotation and with the operator's settings.
func FuzzDecide(f *testing.F) {
	for i, test := range decisions {
		pod, policy := meshPod(test.edits...)
		encoded, err := json.Marshal(pod)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded, []byte(listsProfile), uint8(i), "", policy.Agent, policy.Selection == SelectAnnotated)
	}
	pod, _ := meshPod()
	encoded, _ := json.Marshal(pod)
	for i, key := range fuzzKeys {
		for _, text := range []string{"", "*", "true", "80,443-450", "10.0.0.0/8", "TPROXY", "net1", "0"} {
			f.Add(encoded, []byte(`{}`), uint8(i+1), text, true, slices.Contains(fuzzKeys[:4], key))
		}
	}
	f.Fuzz(func(t *testing.T, podJSON, redirect []byte, key uint8, text string, agent, annotated bool) {
		var pod Pod
		policy := Policy{Selection: SelectInjected, ExcludeNamespaces: Globs{"kube-*"}, Agent: agent}
		var err error
		if policy.Redirect, err = ParseSpec(redirect); err != nil || json.Unmarshal(podJSON, &pod) != nil {
			return
		}
		if annotated {
			policy.Selection = SelectAnnotated
		}
		if n := int(key) % (len(fuzzKeys) + 1); n > 0 {
			annotate(fuzzKeys[n-1], text)(&pod, nil)
		}
		checkDecision(t, pod, policy)
	})
}

// fuzzKeys are the annotations whose value is read.
var fuzzKeys = func() []string {
	keys := []string{annotation.Initialize, annotation.SidecarInject, annotation.SidecarStatus,
		annotation.AmbientRedirection}
	for _, s := range settings {
		keys = append(keys, s.annotations...)
	}
	return keys
}()

func checkDecision(t *testing.T, pod Pod, policy Policy) {
	t.Helper()
	got, err := Decide(pod, policy)
	again, second := Decide(pod, policy)
	if !reflect.DeepEqual(got, again) || !reflect.DeepEqual(err, second) {
		t.Fatalf("%+v, %v, then %+v, %v", got, err, again, second)
	}
	if err != nil {
		if !IsInvalid(err) || got.Verdict != "" && got.Verdict != Redirect || printed(t, got.Spec) != printed(t, Spec{}) {
			t.Fatalf("%+v, %v", got, err)
		}
		return
	}
	if !slices.Contains(Reasons, got.Reason) {
		t.Fatalf("reason %q is not listed", got.Reason)
	}
	switch got.Verdict {
	case Redirect:
		checkRules(t, got.Spec)
	case Untouched, Ask:
		if got.Spec.RuleSet().String() != "" || printed(t, got.Spec) != printed(t, Spec{}) {
			t.Fatalf("%s has settings: %s", got.Verdict, printed(t, got.Spec))
		}
		if got.Verdict == Ask && (pod.Complete || !policy.Agent && pod.Annotations != nil) {
			t.Fatalf("asks again, or nobody: %+v", pod)
		}
	default:
		t.Fatalf("verdict %q", got.Verdict)
	}
}
