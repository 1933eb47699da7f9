package output

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

func TestWrap(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "",
		"one two":            "one two",
		"one two three":      "one two|three",
		"a.long/name of it":  "a.long/|name of it",
		"unbreakablewordäöü": "unbreakabl|ewordäöü",
		"x unbreakable/word": "x|unbreakabl|e/word",
		"ääääääääää öööööööööö": "ääääääääää|öööööööööö",
		"限界限界 限界限界限界":           "限界限界|限界限界限|界",
		"a限界限界限界 ok":            "a限界限界|限界 ok",
	} {
		if got := strings.Join(wrap(text, 10), "|"); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// No line is longer than Width, and none ends in a space, for all texts.
func TestWidth(t *testing.T) {
	text := &Text{}
	long := strings.Repeat("traffic.sidecar.istio.io/excludeOutboundIPRanges, ", 9)
	text.Line(Red, "%s", long)
	text.Item("!", "%s", strings.Repeat("x", 300))
	wide := strings.Repeat("限", 120) // each has two columns
	text.Line(Plain, "%s", wide)
	text.Columns([][]string{{"WHAT", "IS", "FROM"}, {strings.Repeat("w", 40), "yes", long}, {"short", "", ""},
		{wide, wide, "ｗ"}})
	for line := range strings.Lines(text.String()) {
		line = strings.TrimSuffix(line, "\n")
		count := utf8.RuneCountInString(line) + strings.Count(line, "限") + strings.Count(line, "ｗ")
		if count > Width || strings.TrimRight(line, " ") != line {
			t.Errorf("%q", line)
		}
	}
	if strings.Contains(text.String(), "\x1b") {
		t.Error("there are colours where none are to be")
	}
	text = &Text{}
	text.Columns([][]string{{"A", "B"}, {"限界", "x"}, {"abcd", "y"}})
	if text.String() != "  A     B\n  限界  x\n  abcd  y\n" {
		t.Errorf("%q", text.String())
	}
}

// Control characters in an annotation or a log neither clear the screen nor change a verdict's colour.
func TestPrintable(t *testing.T) {
	text := &Text{}
	const bad = "gone\x1b[2J\x9b1m\u0085\u202e\rwell\x07"
	text.Line(Plain, "%s", bad)
	text.Item("->", "%s", bad)
	text.Verdict(Well, "%s", bad)
	text.Columns([][]string{{"A", "B"}, {bad, bad}})
	if strings.ContainsAny(text.String(), "\x1b\r\x07\u009b\u0085\u202e") || !utf8.ValidString(text.String()) {
		t.Errorf("%q", text.String())
	}
	if got := Printable("äöü ✓ a\tb\n"); got != "äöü ✓ a\tb\n" {
		t.Errorf("%q", got)
	}
}

// A program reads the original text from JSON and YAML, but a terminal does not interpret its control characters.
func TestEscaped(t *testing.T) {
	for _, bad := range []string{"gone\u009b1m",
		"\u202egnp", "a: \u202e\n\u0085 b \\u202e \"", "\U000e0041\x7f\u00ad\x1b"} {
		for _, format := range []Format{JSON, YAML} {
			var out strings.Builder
			object := map[string]any{bad: bad, "list": []any{bad, 1, "äöü ✓"}}
			if err := (Writer{Out: &out, Format: format}).Object(object, nil); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); Printable(got) != got {
				t.Errorf("%s: %q", format, got)
			}
			var read map[string]any
			err := yaml.Unmarshal([]byte(out.String()), &read)
			if format == JSON {
				err = json.Unmarshal([]byte(out.String()), &read)
			}
			if err != nil || read[bad] != bad {
				t.Errorf("%s: %v: %q", format, err, read)
			}
		}
	}
}

// Repeated YAML output has separate documents, JSON output separate objects. Neither clears the screen.
func TestAgain(t *testing.T) {
	for format, want := range map[Format]string{
		YAML: "---\na: 1\n---\na: 1\n", JSON: "{\n  \"a\": 1\n}\n{\n  \"a\": 1\n}\n",
		Table: "\x1b[H\x1b[2Ja\n\x1b[H\x1b[2Ja\n",
	} {
		var out strings.Builder
		w := Writer{Out: &out, Format: format, Colours: true}
		for range 2 {
			w.Again()
			if err := w.Object(map[string]int{"a": 1}, func(t *Text) { t.WriteString("a\n") }); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != want {
			t.Errorf("%s: %q", format, out.String())
		}
	}
}

func TestColours(t *testing.T) {
	text := &Text{colours: true}
	text.Line(Green, "well")
	if text.String() != "\x1b[32mwell\x1b[0m\n" {
		t.Errorf("%q", text.String())
	}
	var out strings.Builder
	if HasColours(&out, func(string) string { return "" }) {
		t.Error("colours, and it is no terminal")
	}
}

func TestParseFormat(t *testing.T) {
	for _, format := range Formats {
		if got, err := ParseFormat(format); err != nil || string(got) != format {
			t.Errorf("%s: %s, %v", format, got, err)
		}
	}
	if _, err := ParseFormat("xml"); err == nil || !strings.Contains(err.Error(), "table, wide, json, yaml") {
		t.Error(err)
	}
}

// NotWell stays, whatever else is found. Otherwise the last verdict counts.
func TestVerdict(t *testing.T) {
	for _, test := range []struct{ is, found, want Verdict }{
		{Well, NotWell, NotWell}, {Well, NotAsked, NotAsked}, {NotAsked, NotWell, NotWell}, {NotWell, NotAsked, NotWell},
		{NotWell, Well, NotWell},
	} {
		if got := test.is.With(test.found); got != test.want {
			t.Errorf("%s with %s: %s, want %s", test.is, test.found, got, test.want)
		}
	}
	text := &Text{}
	text.Finding(NotWell, "node-a", Finding{What: "no agent", Next: "see why"})
	text.Verdict(NotLookedAt, "clocks")
	if text.String() != "✗ node-a: no agent\n  -> see why\n  ? clocks\n" {
		t.Error(text.String())
	}
	text = &Text{tool: "kubectl istio-pod-network"}
	text.Finding(NotAsked, "node-a", Finding{What: "who knows", Next: "istio-pod-networkctl status"})
	if text.String() != "? node-a: who knows\n  -> kubectl istio-pod-network status\n" {
		t.Error(text.String())
	}
}
