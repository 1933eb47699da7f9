// Package blank removes credentials from files and logs of others before they leave a node or a cluster. It finds them
// in JSON by the names of keys, and in any text by their form. In doubt it removes: a missing word costs a reader less
// than a token costs its owner.
package blank

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Mark replaces a credential.
const Mark = "(blanked)"

// names are parts of the names of credentials.
const names = `token|passw|passphrase|secret|credential|cookie|api[-_]?key|access[-_]?key|private[-_]?key|` +
	`client[-_]?key|(?:\b|[-_])(?:pass|psk|pwd|sig)\b`

// again matches Mark.
const again = `\(blanked\)`

const (
	// block is a block scalar of YAML with several lines (YAML 1.2.2, section 8.1).
	block = `[|>][-+0-9]*[ \t]*(?:\n[ \t]+[^\n]*)+`
	// escaped is a JSON string within a JSON string, as in a line of a log.
	escaped = `\\"(?:[^"\\]|\\\\(?:\\.|[^"\\]))*\\"`
)

// patterns match credentials, and say what remains of each.
var patterns = []struct {
	is   *regexp.Regexp
	left string
}{
	// A private key, even with its start or end cut off. Source: RFC 7468.
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`), Mark},
	{regexp.MustCompile(`(?s)\A.*-----END [A-Z ]*PRIVATE KEY-----`), Mark},
	// A JSON Web Token, which starts with the base64 of `{"`. Source: RFC 7519.
	{regexp.MustCompile(`\beyJ[\w-]{6,}(?:\.[\w-]*){1,4}`), Mark},
	// The credentials of an HTTP request. Source: RFC 9110, section 11.4.
	{regexp.MustCompile(`(?i)(authorization["']?\s*[:=]\s*["'\[]*)(?:(?:basic|bearer|negotiate|digest)\s+)?(?:` +
		again + `|[^\s"',;\]]+)`), "${1}" + Mark},
	{regexp.MustCompile(`(?i)\b(bearer\s+)["']?[\w.~+/=-]{8,}`), "${1}" + Mark},
	// The value of such a header, alone in a list or under a key with any name.
	{regexp.MustCompile(`(?i)\A(\s*(?:basic|negotiate|digest)\s+)[\w.~+/=-]{4,}\s*\z`), "${1}" + Mark},
	// User and password in a URL: a token is often a user without a password, and a password may contain an @. Source:
	// RFC 3986, section 3.2.1.
	{regexp.MustCompile(`(://)[^/\s"']+@`), "${1}" + Mark + "@"},
	// A value after a name.
	{regexp.MustCompile(`(?i)([\w.-]*(?:` + names + `)[\w-]*\\?["']?\s*[:=]\s*)` +
		`(?:` + again + `|` + block + `|` + escaped + `|"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&"'})\]]+)`), "${1}" + Mark},
	// A value after a flag.
	{regexp.MustCompile(`(?i)((?:^|\s)--?[\w.-]*(?:` + names + `)[\w-]*\s+["']?)` +
		`(?:` + again + `|[^\s"'-][^\s"']*)`), "${1}" + Mark},
	// Keys of cloud providers, code hosts, chats and registries, which have a form of their own.
	{regexp.MustCompile(`\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|gh[pousr]_\w{30,}|github_pat_\w{22,}|` +
		`glpat-[\w-]{20,}|npm_\w{36}|xox[abeoprs][.-][\w.-]{10,})`), Mark},
}

// Text returns the text without what looks like a credential.
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

// Named reports whether the key of an object has a name like that of a credential.
func Named(key string) bool { return credential.MatchString(key) }

// flag matches a flag whose value is the next word of a command line.
var flag = regexp.MustCompile(`(?i)^--?[\w.-]*(?:` + names + `)[\w-]*$`)

// Flag reports whether the next word of the command line is a credential.
func Flag(word string) bool { return flag.MatchString(word) }

// JSON returns the JSON text without the values of keys that are named like credentials, and without strings that look
// like credentials. All other bytes stay as they are. A path under such a key stays if the key says that it is a path.
// JSON in a string is treated in the same way. The error says where the text is not valid JSON.
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

// copying copies a text with changes.
type copying struct {
	text   []byte
	from   *json.Decoder
	copied int
	to     []byte
}

// value copies the value of a key, and returns it if it is a string. inside says that it is part of a value that has to
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

// members copies the contents of an object or a list, up to its end.
func (c *copying) members(begin json.Delim, inside bool) error {
	key := ""    // in a list, a flag is the key of the next element
	called := "" // the name of a variable or header, whose value is in the same object
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

// replace writes another string instead of the value that has just been read, which started at start.
func (c *copying) replace(start int, with string) {
	var quoted bytes.Buffer
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(false)
	_ = e.Encode(with) // encoding a string cannot fail
	c.to = append(append(c.to, c.text[c.copied:start]...), bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
	c.copied = int(c.from.InputOffset())
}

// longestPath is PATH_MAX of Linux (linux/limits.h).
const longestPath = 4096

// stringOf returns what remains of a string under the key.
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

// String returns the text blanked as JSON if it is JSON, and otherwise by Text.
func String(text string) string {
	if trimmed := strings.TrimSpace(text); strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[") {
		if blanked, err := JSON([]byte(text)); err == nil {
			return string(blanked)
		}
	}
	return Text(text)
}

// File returns the configuration file, which has to be JSON, without credentials. If it is not JSON, it has no keys to
// go by: the error says so, and is what to show instead.
func File(text []byte) (string, error) {
	blanked, err := JSON(text)
	if err != nil {
		return "", fmt.Errorf("it is no JSON, so it is not shown: %w", err)
	}
	return string(blanked), nil
}
