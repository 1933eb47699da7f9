package redirect

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// documented is the `redirect` object in the documentation: every key in its order, with its default.
const documented = `{"mode":"REDIRECT","outboundPort":15001,"inboundPort":15006,"proxyUID":1337,"proxyGID":1337,` +
	`"includeOutboundIPRanges":"*","excludeOutboundIPRanges":"","includeInboundPorts":"*",` +
	`"excludeInboundPorts":"15020,15021,15090","includeOutboundPorts":"","excludeOutboundPorts":"",` +
	`"excludeInterfaces":"","rerouteVirtualInterfaces":"","dnsCapture":false,"dnsPort":15053,"dropInvalid":false,` +
	`"includeOutboundOwnerGroups":"*","excludeOutboundOwnerGroups":"","families":"all"}`

// sample has, for one setting, a valid value that is not the default, its canonical form, and invalid values. All are
// JSON; an annotation has the text of a JSON string.
type sample struct {
	annotations []string // in order of precedence
	valid, want string
	invalid     []string // with the right JSON type
	wrongType   []string
	says        string // what the error says is valid
}

var (
	notText   = []string{`15001`, `true`, `[]`, `{}`, `["80"]`}
	notNumber = []string{`"15001"`, `true`, `[]`, `{}`, `""`}
	notBool   = []string{`"true"`, `1`, `0`, `[]`, `{}`, `""`}
)

var samples = map[string]sample{
	"mode": {[]string{annotation.InterceptionMode}, `"TPROXY"`, `"TPROXY"`,
		[]string{`""`, `"redirect"`, `"TPROXY "`}, notText, "REDIRECT, TPROXY or NONE"},
	"outboundPort": {[]string{annotation.EnvoyPort}, `15101`, `15101`, []string{`0`, `65536`, `-1`, `1.5`, `1e3`},
		notNumber, "1 to 65535"},
	"inboundPort": {nil, `15106`, `15106`, []string{`0`, `65536`, `-1`, `15006.0`}, notNumber, "1 to 65535"},
	"proxyUID": {[]string{annotation.EnvoyUserID}, `1000660000`, `1000660000`, []string{`0`, `-1`, `4294967295`, `1e3`},
		notNumber,
		"1 to 4294967294"},
	"proxyGID": {[]string{annotation.EnvoyGroupID}, `0`, `0`, []string{`-1`, `4294967295`, `1.0`}, notNumber,
		"0 to exempt no group"},
	"includeOutboundIPRanges": {[]string{annotation.IncludeOutboundIPRanges}, `"fd00::1/8,10.1.2.3/8"`,
		`"10.0.0.0/8,fd00::/8"`,
		[]string{`"10.0.0.1"`, `"10.0.0.0/8, 11.0.0.0/8"`}, notText, `"*" or a comma-separated list of prefixes`},
	"excludeOutboundIPRanges": {[]string{annotation.ExcludeOutboundIPRanges}, `"10.0.0.0/8"`, `"10.0.0.0/8"`,
		[]string{`"*"`, `"10.0.0.0/33"`}, notText, `valid: a comma-separated list of prefixes`},
	"includeInboundPorts": {[]string{annotation.OwnIncludeInboundPorts, annotation.IncludeInboundPorts},
		`"443, 80, 8000-8100"`, `"80,443,8000-8100"`,
		[]string{`"70000"`, `"80,"`, `"*,80"`}, notText,
		`"*" or a comma-separated list of ports`},
	"excludeInboundPorts": {[]string{annotation.OwnExcludeInboundPorts, annotation.ExcludeInboundPorts}, `"22"`,
		`"22,15020,15021,15090"`,
		[]string{`"*"`, `"90-80"`}, notText,
		`valid: a comma-separated list of ports`},
	"includeOutboundPorts": {[]string{annotation.OwnIncludeOutboundPorts, annotation.IncludeOutboundPorts}, `"*"`,
		`"*"`, []string{`"http"`, `"+80"`}, notText,
		`"*" or a comma-separated list of ports`},
	"excludeOutboundPorts": {[]string{annotation.OwnExcludeOutboundPorts, annotation.ExcludeOutboundPorts}, `"25"`,
		`"25"`, []string{`"*"`, `"0x50"`}, notText,
		`valid: a comma-separated list of ports`},
	"excludeInterfaces": {[]string{annotation.OwnExcludeInterfaces, annotation.ExcludeInterfaces}, `"net2, net1"`,
		`"net1,net2"`,
		[]string{`"1234567890123456"`, `"net+"`}, notText,
		"at most 15 bytes"},
	"rerouteVirtualInterfaces": {[]string{annotation.OwnRerouteVirtualInterfaces, annotation.RerouteVirtualInterfaces,
		annotation.KubevirtInterfaces}, `"tap0"`,
		`"tap0"`,
		[]string{`"a b"`, `"a;b"`}, notText, "at most 15 bytes"},
	"dnsCapture": {nil, `true`, `true`, nil, notBool, "true or false"},
	"dnsPort":    {nil, `5353`, `5353`, []string{`0`, `65536`}, notNumber, "1 to 65535"},
	"includeOutboundOwnerGroups": {[]string{annotation.OwnIncludeOutboundOwnerGroups}, `"2000, 1000,2000"`,
		`"1000,2000"`, []string{`"java"`, `"1000,"`, `"*,1"`, `"-1"`}, notText, `"*" or a comma-separated list of group IDs`},
	"excludeOutboundOwnerGroups": {[]string{annotation.OwnExcludeOutboundOwnerGroups}, `"0,1338"`, `"0,1338"`,
		[]string{`"*"`, `"root"`, `"4294967295"`}, notText, "valid: a comma-separated list of group IDs"},
	"dropInvalid": {nil, `true`, `true`, nil, notBool, "true or false"},
	"families":    {nil, `"IPv4"`, `"IPv4"`, []string{`"both"`, `"ipv4"`, `""`}, notText, "all or proxy"},
}

// field returns one key of a Spec's JSON form.
func field(t *testing.T, s Spec, name string) string {
	t.Helper()
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(printed(t, s)), &values); err != nil {
		t.Fatal(err)
	}
	return string(values[name])
}

// bare returns the text that an annotation has for a JSON literal of the configuration.
func bare(literal string) string {
	var s string
	if json.Unmarshal([]byte(literal), &s) == nil {
		return s
	}
	return literal
}

func TestDefaults(t *testing.T) {
	for _, raw := range []string{"", " \n", "{}", "null", documented, `{"mode":null,"proxyUID":null,"dnsCapture":null}`} {
		if got := printed(t, spec(t, raw)); got != documented {
			t.Errorf("ParseSpec(%s)\n got %s\nwant %s", raw, got, documented)
		}
	}
	if got := printed(t, DefaultSpec()); got != documented {
		t.Errorf("DefaultSpec %s", got)
	}
}

func TestEverySettingHasASample(t *testing.T) {
	for _, s := range settings {
		sample, present := samples[s.name]
		if !present || !slices.Equal(sample.annotations, s.annotations) {
			t.Errorf("%s: annotations %q, sample %t with %q", s.name, s.annotations, present, sample.annotations)
		}
	}
	if len(samples) != len(settings) || len(settings) != strings.Count(documented, ":") {
		t.Errorf("%d settings, %d samples, %d documented", len(settings), len(samples), strings.Count(documented, ":"))
	}
}

func TestConfigKeys(t *testing.T) {
	for name, sample := range samples {
		raw := func(literal string) []byte { return fmt.Appendf(nil, `{%q: %s}`, name, literal) }
		got, err := ParseSpec(raw(sample.valid))
		if err != nil || field(t, got, name) != sample.want || field(t, DefaultSpec(), name) == sample.want {
			t.Errorf("%s: got %s, %v, want %s, which is not the default", name, field(t, got, name), err, sample.want)
		}
		if again := spec(t, printed(t, got)); printed(t, again) != printed(t, got) {
			t.Errorf("%s: %s comes back as %s", name, printed(t, got), printed(t, again))
		}
		for _, literal := range sample.invalid {
			_, err := ParseSpec(raw(literal))
			wantInvalid(t, err, "redirect."+name, bare(literal), sample.says)
		}
		for _, literal := range sample.wrongType {
			_, err := ParseSpec(raw(literal))
			wantInvalid(t, err, "redirect."+name+": ", fmt.Sprintf("%q", literal), sample.says)
		}
	}
}

func TestAnnotations(t *testing.T) {
	for name, sample := range samples {
		for _, key := range sample.annotations {
			pod, policy := meshPod(annotate(key, bare(sample.valid)))
			got, err := Decide(pod, policy)
			if err != nil || got.Verdict != Redirect || field(t, got.Spec, name) != sample.want {
				t.Errorf("%s: got %+v, %v, want %s", key, got, err, sample.want)
			}
			for _, literal := range sample.invalid {
				pod, policy := meshPod(annotate(key, bare(literal)))
				got, err := Decide(pod, policy)
				wantInvalid(t, err, "annotation "+key, fmt.Sprintf("%q", bare(literal)), sample.says)
				if got.Verdict != Redirect || printed(t, got.Spec) != printed(t, Spec{}) {
					t.Errorf("%s: beside the error %+v", key, got)
				}
			}
		}
	}
}

// An annotation takes precedence over the configuration, even if its value is the default or empty.
func TestAnnotationOverrulesConfig(t *testing.T) {
	for name, sample := range samples {
		for _, key := range sample.annotations {
			def := field(t, DefaultSpec(), name)
			pod, policy := meshPod(configured(t, fmt.Sprintf(`{%q: %s}`, name, sample.valid)), annotate(key, bare(def)))
			if got, err := Decide(pod, policy); err != nil || field(t, got.Spec, name) != def {
				t.Errorf("%s: got %s, %v, want %s", key, field(t, got.Spec, name), err, def)
			}
		}
	}
}

func TestFirstAnnotationCounts(t *testing.T) {
	pod, policy := meshPod(annotate(annotation.RerouteVirtualInterfaces, "new0", annotation.KubevirtInterfaces, "old0"))
	got, err := Decide(pod, policy)
	if err != nil || got.Spec.RerouteVirtualInterfaces.String() != "new0" {
		t.Errorf("got %s, %v", got.Spec.RerouteVirtualInterfaces, err)
	}
}

// Every setting changes the rules: otherwise it would do nothing.
func TestEverySettingReachesTheRules(t *testing.T) {
	for name, sample := range samples {
		changes := false
		for _, base := range []string{`"dnsCapture":false`, `"dnsCapture":true`} {
			with := spec(t, fmt.Sprintf(`{%s, %q: %s}`, base, name, sample.valid))
			changes = changes || with.RuleSet().String() != spec(t, "{"+base+"}").RuleSet().String()
		}
		if !changes {
			t.Errorf("%s: %s changes no rule", name, sample.valid)
		}
	}
}

func TestParseSpecRejects(t *testing.T) {
	for raw, part := range map[string]string{
		`[]`:                              "not a JSON object",
		`"mode"`:                          "not a JSON object",
		`7`:                               "not a JSON object",
		`{`:                               "not a JSON object",
		`{"mode":"NONE"} x`:               "not a JSON object",
		`{"mode":`:                        "not a JSON object",
		`{"Mode":"NONE"}`:                 `"Mode": unknown key`,
		`{"outboundport":1}`:              `"outboundport": unknown key`,
		`{"b":1,"a":2,"mode":"NONE"}`:     `"a": unknown key`,
		`{"":1}`:                          `"": unknown key`,
		`{"includeOutboundIPranges":"*"}`: "valid: mode, outboundPort, inboundPort",
	} {
		got, err := ParseSpec([]byte(raw))
		wantInvalid(t, err, part, "redirect")
		if printed(t, got) != printed(t, Spec{}) {
			t.Errorf("%s: settings beside the error: %s", raw, printed(t, got))
		}
	}
}

func TestSpecRoundTrip(t *testing.T) {
	for name, raw := range profiles {
		want := spec(t, raw)
		encoded, err := json.Marshal(want) // by encoding/json, as in a record
		if err != nil {
			t.Fatal(err)
		}
		got := spec(t, string(encoded))
		if printed(t, got) != printed(t, want) || got.RuleSet().String() != want.RuleSet().String() {
			t.Errorf("%s: %s comes back as %s", name, printed(t, want), printed(t, got))
		}
	}
}

// Plugin and agent use the same parser of the policy's keys.
func TestParsePolicy(t *testing.T) {
	parse := func(text string) (Policy, error) {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &keys); err != nil {
			t.Fatal(err)
		}
		return ParsePolicy(keys)
	}
	for _, text := range []string{`{}`, `{"selection": null, "excludeNamespaces": null, "redirect": null, "other": 1}`} {
		if got, err := parse(text); err != nil || !reflect.DeepEqual(got, DefaultPolicy()) {
			t.Errorf("%s: %+v %v", text, got, err)
		}
	}
	got, err := parse(`{"selection": "annotated", "excludeNamespaces": ["a-*"], "redirect": {"proxyUID": 7}}`)
	if err != nil || got.Selection != SelectAnnotated || !got.ExcludeNamespaces.Match("a-b") ||
		got.ExcludeNamespaces.Match("kube-system") || got.Redirect.ProxyUID != 7 {
		t.Errorf("%+v %v", got, err)
	}
	for text, want := range map[string]string{
		`{"selection": "all"}`: `selection: invalid value "all": unknown selection; valid: injected or annotated`,
		`{"selection": 5}`:     `selection: invalid value 5: not a JSON string; valid: injected or annotated`,
		`{"excludeNamespaces": "a"}`: `excludeNamespaces: invalid value "a": not a list of JSON strings; valid: a ` +
			`list of namespace names or patterns`,
		`{"excludeNamespaces": ["["]}`:     `excludeNamespaces[0]: invalid value "["`,
		`{"redirect": {"proxyUID": "x"}}`:  `redirect.proxyUID`,
		`{"redirect": {"proxyUid": 1337}}`: `unknown key`,
	} {
		if _, err := parse(text); err == nil || !IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
