package sysdump

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"regexp"
	"strings"
)

// What a name belongs to: the beginning of its pseudonym.
const (
	ofNode      = "node"
	ofNamespace = "namespace"
	ofPod       = "pod"
	ofOwner     = "owner" // of a pod; the pod's name begins with it
	ofValue     = "value" // of a label
)

// everywhere are names that exist in every cluster or every installation, so they are not private.
var everywhere = map[string]bool{
	"default": true, "kube-system": true, "kube-public": true, "kube-node-lease": true, "istio-system": true,
	"localhost": true, "istio-pod-network-controller": true, "istio-pod-network-agent": true,
	"istio-pod-network-test": true,
}

// redactor replaces names and addresses by pseudonyms. Within an archive the same name always has the same pseudonym.
// In another archive it has another one. A nil redactor replaces nothing.
type redactor struct {
	salt  []byte
	names map[string]string // pseudonyms by name
}

// newRedactor returns a redactor without names.
func newRedactor(salt []byte) *redactor { return &redactor{salt, map[string]string{}} }

// pseudonym returns the pseudonym of something.
func (r *redactor) pseudonym(of, what string) string {
	mac := hmac.New(sha256.New, r.salt)
	mac.Write([]byte(of + "\x00" + what))
	return of + "-" + hex.EncodeToString(mac.Sum(nil)[:5])
}

// know makes the redactor replace a name from now on. Its first meaning counts.
func (r *redactor) know(of, name string) {
	if r == nil || name == "" || everywhere[name] || r.names[name] != "" {
		return
	}
	r.names[name] = r.pseudonym(of, name)
}

// knowNode makes the redactor replace a node's name, also without its domain.
func (r *redactor) knowNode(name string) {
	r.know(ofNode, name)
	if _, err := netip.ParseAddr(name); err != nil {
		short, _, _ := strings.Cut(name, ".")
		r.know(ofNode, short)
	}
}

// said matches fields in a log's line and in JSON with a name or NAMESPACE/NAME.
var said = regexp.MustCompile(`\b(pod|namespace|node)(?:=\\?"?|\\?"\s*:\s*\\?")` +
	`([a-z0-9][a-z0-9.-]*)(?:/([a-z0-9][a-z0-9.-]*))?`)

// named matches an object in JSON, as in a record.
var named = regexp.MustCompile(`\\?"namespace\\?"\s*:\s*\\?"([a-z0-9-]+)\\?"\s*,\s*` +
	`\\?"name\\?"\s*:\s*\\?"([a-z0-9.-]+)\\?"`)

// pair matches NAMESPACE/NAME.
var pair = regexp.MustCompile(`([a-z0-9][a-z0-9-]*)/([a-z0-9][a-z0-9.-]*[a-z0-9])`)

// harvest finds names in texts: names of deleted objects are in no list.
func (r *redactor) harvest(texts []string) {
	for _, text := range texts {
		for _, m := range said.FindAllStringSubmatch(text, -1) {
			switch {
			case m[3] != "":
				r.know(ofNamespace, m[2])
				r.know(ofPod, m[3])
			case m[1] == ofNode:
				r.knowNode(m[2])
			default:
				r.know(m[1], m[2])
			}
		}
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			r.know(ofNamespace, m[1])
			r.know(ofPod, m[2])
		}
	}
	for _, text := range texts {
		for _, m := range pair.FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(r.names[m[1]], ofNamespace) {
				r.know(ofPod, m[2])
			}
		}
	}
}

var (
	// Addresses of each family, and of network cards.
	ipv4 = regexp.MustCompile(`\b(?:\d{1,3}\.){3}\d{1,3}\b`)
	ipv6 = regexp.MustCompile(`[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*`) // also matches texts beside an address
	mac  = regexp.MustCompile(`\b(?:(?:[0-9A-Fa-f]{2}:){5}|(?:[0-9A-Fa-f]{2}-){5})[0-9A-Fa-f]{2}\b`)
	// A word that may be a name or have names between dots; or an escape sequence, whose letter belongs to no word.
	word = regexp.MustCompile(`%[0-9A-Fa-f]{2}|\\[\\"abfnrtv]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?`)
)

// text returns a text with pseudonyms.
func (r *redactor) text(text string) string {
	if r == nil {
		return text
	}
	text = word.ReplaceAllStringFunc(text, r.word)
	text = mac.ReplaceAllStringFunc(text, func(found string) string {
		return r.pseudonym("mac", strings.ToLower(strings.ReplaceAll(found, "-", ":")))
	})
	return ipv4.ReplaceAllStringFunc(r.addresses(text), r.address)
}

// longest is the length of the longest address, with the last four bytes in IPv4's form.
const longest = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")

// addresses replaces IPv6 addresses. A name with a colon may precede an address, and a colon with other text may
// follow.
func (r *redactor) addresses(text string) string {
	var to strings.Builder
	done := 0
	for _, at := range ipv6.FindAllStringIndex(text, -1) {
		for start := beginOf(text, at[0]); start < at[1]; start++ {
			if start > at[0] && isHex(text[start-1]) && text[start] != ':' {
				continue // inside a group
			}
			for end := min(at[1], start+longest); end > start; end-- {
				if end < at[1] && isHex(text[end]) && isHex(text[end-1]) {
					continue
				}
				if _, err := netip.ParseAddr(text[start:end]); err == nil {
					to.WriteString(text[done:start] + r.address(text[start:end]))
					done, start = end, end-1
					break
				}
			}
		}
	}
	return to.String() + text[done:]
}

// beginOf returns where an address can begin, from start on, where the first hexadecimal digit is. The last letters of
// a word are no group of it, unless they belong to an escape sequence.
func beginOf(text string, start int) int {
	begin := strings.TrimLeft(text[start:], "abcdefABCDEF")
	if start == 0 || !isLetter(text[start-1]) || !strings.HasPrefix(begin, ":") ||
		start > 1 && text[start-2] == '\\' {
		return start
	}
	return len(text) - len(begin)
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

func isHex(b byte) bool { return '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'f' }

// word replaces a name, or the names between a word's dots, the longest first.
func (r *redactor) word(found string) string {
	if known := r.names[found]; known != "" {
		return known
	}
	if !strings.Contains(found, ".") {
		return found
	}
	labels := strings.Split(found, ".")
	var to []string
	for i := 0; i < len(labels); {
		next := i + 1
		replaced := labels[i]
		for j := len(labels); j > i; j-- {
			if known := r.names[strings.Join(labels[i:j], ".")]; known != "" {
				replaced, next = known, j
				break
			}
		}
		to, i = append(to, replaced), next
	}
	return strings.Join(to, ".")
}

// address replaces an address, unless every machine has it.
func (r *redactor) address(found string) string {
	a, err := netip.ParseAddr(found)
	switch {
	case err != nil || a.IsLoopback() || a.IsUnspecified():
		return found
	case a.Is4():
		return r.pseudonym("ipv4", a.String())
	case a.Is4In6():
		return "::ffff:" + r.pseudonym("ipv4", a.Unmap().String())
	}
	return r.pseudonym("ipv6", a.String())
}

// log returns lines with pseudonyms. Each line may be JSON.
func (r *redactor) log(text string) string {
	if r == nil {
		return text
	}
	var to strings.Builder
	for line := range strings.Lines(text) {
		stamp, rest := "", line
		if before, behind, found := strings.Cut(line, " "); found && !strings.HasPrefix(line, "{") {
			stamp, rest = before+" ", behind // the kubelet's time
		}
		var object map[string]any
		d := json.NewDecoder(strings.NewReader(rest))
		d.UseNumber()
		if !json.Valid([]byte(rest)) || d.Decode(&object) != nil || object == nil {
			to.WriteString(r.text(line))
			continue
		}
		var data bytes.Buffer
		e := json.NewEncoder(&data)
		e.SetEscapeHTML(false)
		_ = e.Encode(r.object(object)) // it comes from JSON, so it can be encoded
		to.WriteString(r.text(stamp) + data.String())
	}
	return to.String()
}

// free are keys whose objects have keys that users choose.
var free = map[string]bool{
	"labels": true, "annotations": true, "matchLabels": true, "nodeSelector": true, "data": true, "selector": true,
}

// object returns a JSON tree with pseudonyms in its strings, and in keys that users choose.
func (r *redactor) object(o any) any {
	if r == nil {
		return o
	}
	return r.value(o, "")
}

// value does what object does, for the value of a key.
func (r *redactor) value(v any, key string) any {
	switch v := v.(type) {
	case string:
		return r.text(v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = r.value(v[i], "")
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, of := range v {
			to := name
			if free[key] {
				to = r.text(name)
			}
			if text, is := of.(string); is && key == "labels" {
				object[to] = r.label(name, text)
			} else {
				object[to] = r.value(of, name)
			}
		}
		return object
	}
	return v
}

// settled are labels without a domain whose values users do not choose freely.
var settled = map[string]bool{
	"istio-injection": true, "pod-template-hash": true, "controller-revision-hash": true, "pod-template-generation": true,
}

// label returns the value of a label. Values that users choose may name what they run.
func (r *redactor) label(key, value string) string {
	replaced := r.text(value)
	domain, name, _ := strings.Cut(key, "/")
	chosen := !isTold(domain) && !settled[key]
	switch domain {
	case "app.kubernetes.io":
		chosen = name != "version" && name != "managed-by"
	case "service.istio.io":
		chosen = name == "canonical-name"
	}
	if !chosen || replaced != value || value == "" || everywhere[value] {
		return replaced
	}
	return r.pseudonym(ofValue, value)
}
