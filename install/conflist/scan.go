package conflist

import (
	"encoding/json"
	"strings"
)

// span is a part of the text: data[start:end].
type span struct{ start, end int }

func (s span) of(data []byte) []byte { return data[s.start:s.end] }

// member is a key of an object, and the position of its value.
type member struct {
	key   string
	at    int // offset of the key
	value span
}

// whiteSpace are the characters that JSON treats as white space (RFC 8259, section 2).
const whiteSpace = " \t\n\r"

// space returns the offset of the first byte at or after i that is not white space.
func space(data []byte, i int) int {
	for i < len(data) && strings.IndexByte(whiteSpace, data[i]) >= 0 {
		i++
	}
	return i
}

// value returns the end of the value that starts at i. The text must be valid JSON. It does not recurse, so the depth
// of nesting does not matter.
func value(data []byte, i int) int {
	depth := 0
	for ; i < len(data); i++ {
		switch data[i] {
		case '"':
			for i++; data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			if depth > 0 {
				continue
			}
			for i < len(data) && !delimits(data[i]) {
				i++
			}
			return i
		}
		if depth == 0 {
			return i + 1
		}
	}
	return i
}

// delimits reports whether c ends a number or a literal.
func delimits(c byte) bool {
	switch c {
	case ' ', '\t', '\n', '\r', ',', ']', '}':
		return true
	}
	return false
}

// members returns the members of an object in their order. The text must be that of an object.
func members(data []byte) ([]member, error) {
	if !json.Valid(data) {
		return nil, ErrNotJSON
	}
	i := space(data, 0)
	if data[i] != '{' {
		return nil, ErrNotObject
	}
	var all []member
	for i = space(data, i+1); data[i] != '}'; {
		m := member{at: i}
		end := value(data, i)
		if err := json.Unmarshal(data[i:end], &m.key); err != nil {
			return nil, ErrNotJSON
		}
		m.value.start = space(data, space(data, end)+1) // after the colon
		m.value.end = value(data, m.value.start)
		all = append(all, m)
		if i = space(data, m.value.end); data[i] == ',' {
			i = space(data, i+1)
		}
	}
	return all, nil
}

// elements returns the positions of the elements of the array at s.
func elements(data []byte, s span) []span {
	all := []span{}
	for i := space(data, s.start+1); data[i] != ']'; {
		e := span{i, value(data, i)}
		all = append(all, e)
		if i = space(data, e.end); data[i] == ',' {
			i = space(data, i+1)
		}
	}
	return all
}

// last returns the member that a decoder uses for a key: the last one.
func last(all []member, key string) (found member, present bool) {
	for _, m := range all {
		if m.key == key {
			found, present = m, true
		}
	}
	return found, present
}

// text returns the string value, or "" for any other value.
func text(data []byte) string {
	var s string
	_ = json.Unmarshal(data, &s)
	return s
}
