package standin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

// Seal is a secret of those who call each other and answer. By it a server knows its callers, and a caller knows that
// who answers is no stranger: somebody who only sees a call, or knows the names, can make neither. The empty one proves
// nothing, and changes nothing of what is sent.
//
// A sealed call is "NAME NONCE TAG", and its answer "ANSWER TAG", whose tag is of the nonce too.
type Seal string

// ErrStranger says that somebody has answered who does not know the secret.
var ErrStranger = errors.New("who answers is not of this run")

// What a tag is of, so that none of the one can be taken for the other.
const (
	ofCall   = "call"
	ofAnswer = "answer"
)

// tag proves that the secret is known, to whoever knows it.
func (s Seal) tag(of, nonce, text string) string {
	mac := hmac.New(sha256.New, []byte(s))
	mac.Write([]byte(of + "\x00" + nonce + "\x00" + text))
	return hex.EncodeToString(mac.Sum(nil)[:sha256.Size/2])
}

func (s Seal) holds(tag, of, nonce, text string) bool {
	return hmac.Equal([]byte(tag), []byte(s.tag(of, nonce, text)))
}

// call seals what a caller says, and returns the nonce by which it knows the answer.
func (s Seal) call(name string) (line, nonce string) {
	if s == "" {
		return name, ""
	}
	nonce = rand.Text()
	return strings.Join([]string{name, nonce, s.tag(ofCall, nonce, name)}, " "), nonce
}

// called opens what a caller has said. Nobody who does not know the secret is heard.
func (s Seal) called(line string) (name, nonce string, known bool) {
	if s == "" {
		return line, "", true
	}
	rest, tag := cutLast(line)
	name, nonce = cutLast(rest)
	return name, nonce, s.holds(tag, ofCall, nonce, name)
}

// answer seals what a server says to a call.
func (s Seal) answer(nonce, answer string) string {
	if s == "" {
		return answer
	}
	return answer + " " + s.tag(ofAnswer, nonce, answer)
}

// answered opens what has been said to a call.
func (s Seal) answered(nonce, line string) (answer string, err error) {
	if s == "" {
		return line, nil
	}
	answer, tag := cutLast(line)
	if !s.holds(tag, ofAnswer, nonce, answer) {
		return "", ErrStranger
	}
	return answer, nil
}

// guarded is answer for a server: strangers get nothing, and the others a sealed answer.
func (s Seal) guarded(answer func(caller string) string) func(line string) string {
	return func(line string) string {
		name, nonce, known := s.called(line)
		if !known {
			return ""
		}
		return s.answer(nonce, answer(name))
	}
}

// cutLast cuts a text before its last word.
func cutLast(text string) (before, last string) {
	i := strings.LastIndexByte(text, ' ')
	return text[:max(i, 0)], text[i+1:]
}
