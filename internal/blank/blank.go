// Package blank takes credentials out of what others wrote, before it leaves a node or a cluster: out of JSON by the
// names of keys, and out of any text by what a credential looks like. In doubt it blanks: a word too many costs a
// reader less than a token costs its owner.
package blank

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Mark stands where a credential was.
const Mark = "(blanked)"

// names are what the name of a credential has in it.
const names = `token|passw|passphrase|secret|credential|cookie|api[-_]?key|access[-_]?key|private[-_]?key|` +
	`client[-_]?key|(?:\b|[-_])(?:pass|psk|pwd|sig)\b`

// again is what has been blanked before.
const again = `\(blanked\)`

const (
	// block is a text of YAML of more lines than one.
	block = `[|>][-+0-9]*[ \t]*(?:\n[ \t]+[^\n]*)+`
	// escaped is a string of JSON in a string, as a line of a log has it.
	escaped = `\\"(?:[^"\\]|\\\\(?:\\.|[^"\\]))*\\"`
)

// patterns are credentials by their looks, and what is left of each.
var patterns = []struct {
	is   *regexp.Regexp
	left string
}{
	// A private key, also one whose begin or end has been cut off. Source: RFC 7468.
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`), Mark},
	{regexp.MustCompile(`(?s)\A.*-----END [A-Z ]*PRIVATE KEY-----`), Mark},
	// A JSON Web Token, which begins with the base64 of `{"`. Source: RFC 7519.
	{regexp.MustCompile(`\beyJ[\w-]{6,}(?:\.[\w-]*){1,4}`), Mark},
	// The credentials of a request. Source: RFC 9110, 11.4.
	{regexp.MustCompile(`(?i)(authorization["']?\s*[:=]\s*["'\[]*)(?:(?:basic|bearer|negotiate|digest)\s+)?(?:` +
		again + `|[^\s"',;\]]+)`), "${1}" + Mark},
	{regexp.MustCompile(`(?i)\b(bearer\s+)["']?[\w.~+/=-]{8,}`), "${1}" + Mark},
	// All of such a header's value, which stands alone in a list or behind a key of any name.
	{regexp.MustCompile(`(?i)\A(\s*(?:basic|negotiate|digest)\s+)[\w.~+/=-]{4,}\s*\z`), "${1}" + Mark},
	// User and password in an address: a token is often a user without a password, and a password may have an @.
	// Source: RFC 3986, 3.2.1.
	{regexp.MustCompile(`(://)[^/\s"']+@`), "${1}" + Mark + "@"},
	// A value behind a name.
	{regexp.MustCompile(`(?i)([\w.-]*(?:` + names + `)[\w-]*\\?["']?\s*[:=]\s*)` +
		`(?:` + again + `|` + block + `|` + escaped + `|"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&"'})\]]+)`), "${1}" + Mark},
	// A value behind a flag.
	{regexp.MustCompile(`(?i)((?:^|\s)--?[\w.-]*(?:` + names + `)[\w-]*\s+["']?)` +
		`(?:` + again + `|[^\s"'-][^\s"']*)`), "${1}" + Mark},
	// Keys of clouds, code hosts, chats and registries, which have a form of their own.
	{regexp.MustCompile(`\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|gh[pousr]_\w{30,}|github_pat_\w{22,}|` +
		`glpat-[\w-]{20,}|npm_\w{36}|xox[abeoprs][.-][\w.-]{10,})`), Mark},
}

// Text returns a text without what looks like a credential.
func Text(text string) string {
	for _, p := range patterns {
		text = p.is.ReplaceAllString(text, p.left)
	}
	return text
}

var (
	credential = regexp.MustCompile(`(?i)` + names + `|^auth$|[-_]auth$|authorization|key$|keys$|[-_]key|key[-_]?data`)
	place      = regexp.MustCompile(`(?i)(?:file|path|dir)$`)
)

// Named reports whether a key of an object is named as a credential is.
func Named(key string) bool { return credential.MatchString(key) }

// flag is a flag whose value is the next word of a command line.
var flag = regexp.MustCompile(`(?i)^--?[\w.-]*(?:` + names + `)[\w-]*$`)

// Flag reports whether a word of a command line says that the next one is a credential.
func Flag(word string) bool { return flag.MatchString(word) }

// JSON returns a JSON text in which the value of each key that is named as a credential is is blanked, and no string
// looks like one. All else keeps its bytes. A path under such a key stays a path, if the key says that it is one; JSON
// in a string is treated alike. An error says where the text is no JSON.
func JSON(text []byte) ([]byte, error) {
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	c := copying{text: text, from: d}
	if _, err := c.value("", false); err != nil {
		return nil, err
	}
	return append(c.to, text[c.copied:]...), nil
}

// copying is a text that is copied with changes.
type copying struct {
	text   []byte
	from   *json.Decoder
	copied int
	to     []byte
}

// value copies a value that a key has, and returns it if it is a string; inside says that it is part of one that is to
// be blanked.
func (c *copying) value(key string, inside bool) (text string, err error) {
	start := int(c.from.InputOffset())
	for start < len(c.text) && strings.IndexByte(" \t\r\n:,", c.text[start]) >= 0 {
		start++
	}
	token, err := c.from.Token()
	if err != nil {
		return "", err
	}
	blanks := !inside && Named(key)
	switch t := token.(type) {
	case json.Delim:
		if err := c.members(t, inside || blanks); err != nil {
			return "", err
		}
		if blanks {
			c.replace(start, Mark)
		}
	case string:
		text = t
		if replaced := stringOf(key, t, blanks); replaced != t && !inside {
			c.replace(start, replaced)
		}
	case json.Number:
		if blanks {
			c.replace(start, Mark)
		}
	}
	return text, nil
}

// members copies what is in an object or a list, with its end.
func (c *copying) members(begin json.Delim, inside bool) error {
	key := ""    // in a list a flag is the key of what follows it
	called := "" // a variable or a header has its name and its value side by side
	for c.from.More() {
		if begin == '{' {
			name, err := c.from.Token()
			if err != nil {
				return err
			}
			if key, _ = name.(string); key == "value" && Named(called) {
				key = called
			}
		}
		text, err := c.value(key, inside)
		if err != nil {
			return err
		}
		if key == "name" {
			called = text
		}
		if key = ""; Flag(text) {
			key = text
		}
	}
	_, err := c.from.Token()
	return err
}

// replace has another string in the place of the value that began at start and has just been read.
func (c *copying) replace(start int, with string) {
	var quoted bytes.Buffer
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(false)
	_ = e.Encode(with) // a string can be encoded
	c.to = append(append(c.to, c.text[c.copied:start]...), bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
	c.copied = int(c.from.InputOffset())
}

// longestPath is that of Linux, PATH_MAX.
const longestPath = 4096

// stringOf is what is left of a string that a key has.
func stringOf(key, text string, blanks bool) string {
	switch {
	case text == "":
		return text
	case blanks && place.MatchString(key) && strings.HasPrefix(text, "/") && len(text) < longestPath &&
		!strings.ContainsAny(text, " \r\n"):
		return text
	case blanks:
		return Mark
	}
	return String(text)
}

// String is Text of a text that may be JSON, of which it is JSON.
func String(text string) string {
	if trimmed := strings.TrimSpace(text); strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[") {
		if blanked, err := JSON([]byte(text)); err == nil {
			return string(blanked)
		}
	}
	return Text(text)
}

// File returns what may be shown of a configuration file of JSON. An error is what to say instead: a text that is no
// JSON has no keys to go by.
func File(text []byte) (string, error) {
	blanked, err := JSON(text)
	if err != nil {
		return "", fmt.Errorf("it is no JSON, so it is not shown: %w", err)
	}
	return string(blanked), nil
}
