package standin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

// Seal is a secret that the callers and servers of a run share. A server recognises its callers by it, and a caller its
// servers. Knowing the names, or the messages of a call, is not enough. With the empty Seal, messages have no proof.
//
// A sealed call is "NAME NONCE TAG". Its answer is "ANSWER TAG", and the tag depends on the nonce.
type Seal string

// ErrStranger is the error if the answer is not from a server with the secret.
var ErrStranger = errors.New("who answers is not of this run")

// What a tag is for, so that the tag of a call is never valid for an answer.
const (
	ofCall   = "call"
	ofAnswer = "answer"
)

// tag proves knowledge of the secret to others with the secret.
func (s Seal) tag(of, nonce, text string) string {
	mac := hmac.New(sha256.New, []byte(s))
	mac.Write([]byte(of + "\x00" + nonce + "\x00" + text))
	return hex.EncodeToString(mac.Sum(nil)[:sha256.Size/2])
}

func (s Seal) holds(tag, of, nonce, text string) bool {
	return hmac.Equal([]byte(tag), []byte(s.tag(of, nonce, text)))
}

// call returns a caller's sealed line, and the nonce for the answer.
func (s Seal) call(name string) (line, nonce string) {
	if s == "" {
		return name, ""
	}
	nonce = rand.Text()
	return strings.Join([]string{name, nonce, s.tag(ofCall, nonce, name)}, " "), nonce
}

// called opens a caller's line. known is false for a caller without the secret.
func (s Seal) called(line string) (name, nonce string, known bool) {
	if s == "" {
		return line, "", true
	}
	rest, tag := cutLast(line)
	name, nonce = cutLast(rest)
	return name, nonce, s.holds(tag, ofCall, nonce, name)
}

// answer returns a server's sealed answer to a call.
func (s Seal) answer(nonce, answer string) string {
	if s == "" {
		return answer
	}
	return answer + " " + s.tag(ofAnswer, nonce, answer)
}

// answered opens the answer to a call. The error is ErrStranger for one without the secret.
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

// guarded wraps a server's function: strangers get no answer, and others a sealed one.
func (s Seal) guarded(answer func(caller string) string) func(line string) string {
	return func(line string) string {
		name, nonce, known := s.called(line)
		if !known {
			return ""
		}
		return s.answer(nonce, answer(name))
	}
}

// cutLast cuts the last word from a text.
func cutLast(text string) (before, last string) {
	i := strings.LastIndexByte(text, ' ')
	return text[:max(i, 0)], text[i+1:]
}
