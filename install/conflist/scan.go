package conflist

import (
	"encoding/json"
	"strings"
)

// span is a part of a text: data[start:end].
type span struct{ start, end int }

func (s span) of(data []byte) []byte { return data[s.start:s.end] }

// member is one key of an object and where its value is.
type member struct {
	key   string
	at    int // offset of the key
	value span
}

// whiteSpace are the characters that JSON takes for it.
const whiteSpace = " \t\n\r"

// space returns the offset of the first byte at or after i that is no JSON white space.
func space(data []byte, i int) int {
	for i < len(data) && strings.IndexByte(whiteSpace, data[i]) >= 0 {
		i++
	}
	return i
}

// value returns the end of the value that starts at i. The text must be valid JSON; nothing recurses, so that no depth
// of nesting hurts.
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

// delimits reports whether a number or literal ends before c.
func delimits(c byte) bool {
	switch c {
	case ' ', '\t', '\n', '\r', ',', ']', '}':
		return true
	}
	return false
}

// members returns the members of the object that a text consists of, in their order.
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
		m.value.start = space(data, space(data, end)+1) // past the colon
		m.value.end = value(data, m.value.start)
		all = append(all, m)
		if i = space(data, m.value.end); data[i] == ',' {
			i = space(data, i+1)
		}
	}
	return all, nil
}

// elements returns where the elements of the array at s are.
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

// last returns the value that a decoder takes for a key, which is the last one with it.
func last(all []member, key string) (found member, present bool) {
	for _, m := range all {
		if m.key == key {
			found, present = m, true
		}
	}
	return found, present
}

// text returns a string value, or "" for any other.
func text(data []byte) string {
	var s string
	_ = json.Unmarshal(data, &s)
	return s
}
