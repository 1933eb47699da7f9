package main

import (
	"net/http"
	"strings"
)

// certificate is what a sidecar has verified of a caller's certificate, and what it says of its own. Envoy writes it
// into the header x-forwarded-client-cert
// (https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_conn_man/headers#x-forwarded-client-cert).
type certificate struct {
	// URI is the caller's identity, and By the callee's, in the SPIFFE form spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT.
	URI string `json:"uri"`
	By  string `json:"by,omitempty"`
	// Hash is the SHA-256 of the caller's certificate in hexadecimal.
	Hash string `json:"hash,omitempty"`
}

// callerOf returns the caller's certificate from the headers of a request, nil if there is none. If the header has
// several elements, the last one is of this connection. A caller may have made up the others.
func callerOf(headers http.Header) *certificate {
	values := headers.Values("X-Forwarded-Client-Cert")
	if len(values) == 0 {
		return nil
	}
	elements := split(strings.Join(values, ","), ',')
	var c certificate
	for _, pair := range split(elements[len(elements)-1], ';') {
		key, value, _ := strings.Cut(pair, "=")
		value = unquoted(value)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "uri":
			c.URI = value
		case "by":
			c.By = value
		case "hash":
			c.Hash = value
		}
	}
	if c.URI == "" {
		return nil
	}
	return &c
}

// split cuts a text at a separator, but not inside double quotes, where a backslash escapes the next character.
func split(text string, separator rune) (parts []string) {
	start, quoted, escaped := 0, false, false
	for i, r := range text {
		switch {
		case escaped:
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted = !quoted
		case r == separator && !quoted:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:])
}

func unquoted(value string) string {
	inner, found := strings.CutPrefix(value, `"`)
	if !found {
		return value
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(strings.TrimSuffix(inner, `"`))
}
