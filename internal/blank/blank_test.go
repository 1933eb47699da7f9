package blank

import (
	"encoding/json"
	"strings"
	"testing"
)

const (
	jwt     = "eyJhbGciOiJSUzI1NiIsImtpZCI6IkEifQ.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl-_A"
	letters = "0123456789abcdefghijABCDEFGHIJ012345"
	pem     = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nabc\n-----END RSA PRIVATE KEY-----"
)

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"nothing to hide: token-less pods":      "nothing to hide: token-less pods",
		"Authorization: Bearer " + jwt:          "Authorization: (blanked)",
		`"authorization":["Bearer abc"]`:        `"authorization":["(blanked)"]`,
		"got " + jwt + " of it":                 "got (blanked) of it",
		"Bearer 0123456789abcdef":               "Bearer (blanked)",
		"a bearer of news":                      "a bearer of news",
		"--token=abc --node=a":                  "--token=(blanked) --node=a",
		"sh --password abc -token -x":           "sh --password (blanked) -token -x",
		"AWS_SECRET_ACCESS_KEY: x1 y":           "AWS_SECRET_ACCESS_KEY: (blanked) y",
		`{"password":"a \" b"}`:                 `{"password":(blanked)}`,
		"https://me:pass@example.com/x":         "https://(blanked)@example.com/x",
		"https://ghs_abc@example.com/x":         "https://(blanked)@example.com/x",
		"https://me:p@ss@example.com/x@y":       "https://(blanked)@example.com/x@y",
		"?sig=abc&x=1 passphrase: abc":          "?sig=(blanked)&x=1 passphrase: (blanked)",
		"MYSQL_PWD=abc pass=abc db-psk: a":      "MYSQL_PWD=(blanked) pass=(blanked) db-psk: (blanked)",
		"bypass: true, signal=1, cwd=/":         "bypass: true, signal=1, cwd=/",
		"password: |\n  abc\n  def\nnext":       "password: (blanked)\nnext",
		`msg="{\"token\":\"a \\\"b\",\"n\":1}"`: `msg="{\"token\":(blanked),\"n\":1}"`,
		"Basic dXNlcjpw":                        "Basic (blanked)",
		"basic things of a text":                "basic things of a text",
		"key " + pem + " end":                   "key (blanked) end",
		"cut " + pem[:40]:                       "cut (blanked)",
		pem[40:] + " next":                      "(blanked) next",
		"AKIAIOSFODNN7EXAMPLE.":                 "(blanked).",
		"github_pat_" + letters + "_" + letters: "(blanked)",
		"xoxb-12345678901-" + letters + ", x":   "(blanked), x",
		"AIza" + letters[:31] + "-_xy.":         "(blanked).",
		"npm_" + letters + " npm_config_cache":  "(blanked) npm_config_cache",
		"10.0.0.1:8080 and fd00::1":             "10.0.0.1:8080 and fd00::1",
		"/etc/cni/net.d/calico-kubeconfig":      "/etc/cni/net.d/calico-kubeconfig",
	} {
		if got := Text(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		if got := Text(Text(text)); got != want {
			t.Errorf("%q again: %q", text, got)
		}
	}
}

// What is not blanked keeps its bytes, its white space and its order.
func TestJSON(t *testing.T) {
	for text, want := range map[string]string{
		`{ "b": 1e2,	"a": [true, null, "x"] }` + "\n": `{ "b": 1e2,	"a": [true, null, "x"] }` + "\n",
		`{"kubernetes": {"k8s_auth_token": "abc", "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"}}`: `{"kubernetes": {` +
			`"k8s_auth_token": "(blanked)", "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"}}`,
		`{"etcd_key_file": "/calico-secrets/key", "etcd_key_path": "MII"}`: `{"etcd_key_file": "/calico-secrets/key", ` +
			`"etcd_key_path": "(blanked)"}`,
		`{"key": "/9j/4AAQ", "client-key-data": "x", "password": 1234, "useToken": true}`: `{"key": "(blanked)", ` +
			`"client-key-data": "(blanked)", "password": "(blanked)", "useToken": true}`,
		`{"secrets": [{"a": "1", "token": "x"}, 2], "next": "n"}`: `{"secrets": "(blanked)", "next": "n"}`,
		`{"config": "{\"token\": \"x\"}", "token": "", "t": 1}`: `{"config": "{\"token\": \"(blanked)\"}", "token": "", ` +
			`"t": 1}`,
		`["Bearer 0123456789", "<a>"]`: `["Bearer (blanked)", "<a>"]`,
		`{"headers": {"Authorization": "Basic dTpw", "X": ["Authorization", "Basic dTpw"]}, "auth": "dTpw"}`: `{"headers": ` +
			`{"Authorization": "(blanked)", "X": ["Authorization", "Basic (blanked)"]}, "auth": "(blanked)"}`,
		`[{"name": "Cookie", "value": "a=b"}, {"name": "a", "value": "b"}]`: `[{"name": "Cookie", "value": "(blanked)"}, ` +
			`{"name": "a", "value": "b"}]`,
		`"` + jwt + `"`: `"(blanked)"`,
		`["--token", "x", "--node", "--secret", ["y"], 1]`: `["--token", "(blanked)", "--node", "--secret", "(blanked)", ` +
			`1]`,
	} {
		got, err := JSON([]byte(text))
		if string(got) != want || err != nil {
			t.Errorf("%s: %s, want %s: %v", text, got, want, err)
		}
		if !json.Valid(got) {
			t.Errorf("%s is no JSON", got)
		}
	}
	for _, text := range []string{"", "{", `{"token": "x"} {}`, "apiVersion: v1\ntoken: x"} {
		if got, err := File([]byte(text)); got != "" || err == nil || !strings.Contains(err.Error(), "not shown") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func FuzzJSON(f *testing.F) {
	f.Add(`{"a": ["b", {"token": {"c": 1}}], "key": 2}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := JSON([]byte(text))
		if err == nil && !json.Valid(got) || err == nil != json.Valid([]byte(text)) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	})
}
