package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// The grammar of Envoy's header is in
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_conn_man/headers.
func TestCallerOf(t *testing.T) {
	page := certificate{URI: "spiffe://cluster.local/ns/shop/sa/page", By: "spiffe://cluster.local/ns/shop/sa/reviews",
		Hash: "ab12"}
	for _, c := range []struct {
		name   string
		values []string
		want   *certificate
	}{
		{"none", nil, nil},
		{"empty", []string{""}, nil},
		{"one", []string{`By=` + page.By + `;Hash=ab12;Subject="";URI=` + page.URI}, &page},
		{"quoted", []string{`By="` + page.By + `";Hash=ab12;Subject="O=\"a;b\", C=x";URI="` + page.URI + `"`}, &page},
		{"the last element is the connection's", []string{
			`By=x;Hash=00;URI=spiffe://made/up,By=` + page.By + `;Hash=ab12;URI=` + page.URI}, &page},
		{"so is the last header", []string{`By=x;Hash=00;URI=spiffe://made/up`,
			`By=` + page.By + `;Hash=ab12;URI=` + page.URI}, &page},
		{"a certificate without identity", []string{`By=x;Hash=00;Subject="CN=somebody"`}, nil},
		{"nonsense", []string{`"";=;"`}, nil},
	} {
		got := callerOf(http.Header{"X-Forwarded-Client-Cert": c.values})
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// mesh serves all roles, each behind the function of its sidecar.
type mesh struct {
	// sidecar handles a request as the service's sidecar. It returns false if it has answered the request.
	sidecar func(service string, w http.ResponseWriter, r *http.Request) bool
	at      map[string]string
}

func newMesh(t *testing.T, sidecar func(service string, w http.ResponseWriter, r *http.Request) bool) *mesh {
	t.Helper()
	m := &mesh{sidecar, map[string]string{}}
	for name, r := range roles {
		client := &http.Client{Transport: as(name)}
		s := service{name: name, pod: name + "-1", role: r, client: client,
			address: func(peer string) string { return m.at[peer] }}
		handler := s.handler()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if m.sidecar(name, w, r) {
				handler.ServeHTTP(w, r)
			}
		}))
		t.Cleanup(server.Close)
		m.at[name] = server.URL + "/"
	}
	return m
}

const callerHeader = "Test-Caller"

// as is a transport that adds the caller's name.
type as string

func (a as) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set(callerHeader, string(a))
	return http.DefaultTransport.RoundTrip(r)
}

func identity(account string) string { return "spiffe://cluster.local/ns/shop/sa/" + account }

// mutual is mTLS between the services. The visitor has no certificate.
func mutual(service string, _ http.ResponseWriter, r *http.Request) bool {
	if caller := r.Header.Get(callerHeader); caller != "" {
		r.Header.Set("X-Forwarded-Client-Cert", fmt.Sprintf("By=%s;Hash=%s;Subject=\"\";URI=%s", identity(service),
			strings.Repeat(string(caller[0]), 64), identity(caller)))
	}
	return true
}

// A request to the page goes through all four services. Each says who called it.
func TestCalls(t *testing.T) {
	m := newMesh(t, mutual)
	var out bytes.Buffer
	if status := run([]string{"visit", "-n", "2", m.at["page"]}, &out, &out); status != 0 {
		t.Errorf("exit status %d", status)
	}
	const want = `calls                     the callee has seen   of the certificate
visitor
└─ 2 × ─► page            plain text
   ├─ 2 × ─► details      shop/page             pppppppppppppppp
   └─ 2 × ─► reviews      shop/page             pppppppppppppppp
      └─ 2 × ─► ratings   shop/reviews          rrrrrrrrrrrrrrrr
`
	if out.String() != want {
		t.Errorf("drawn:\n%s\nwant:\n%s", out.String(), want)
	}
}

// Headers of the request are passed on. The caller's certificate is not, because a callee without a sidecar could use
// it.
func TestPassedOn(t *testing.T) {
	seen := map[string]string{}
	m := newMesh(t, func(service string, w http.ResponseWriter, r *http.Request) bool {
		if service == "ratings" { // it is called once
			seen["id"], seen["certificate"] = r.Header.Get("X-Request-Id"), r.Header.Get("X-Forwarded-Client-Cert")
		}
		return service == "ratings" || mutual(service, w, r)
	})
	a := ask(http.DefaultClient, m.at["page"], http.Header{"X-Request-Id": {"17"}})
	if a.Error != "" || seen["id"] != "17" || seen["certificate"] != "" {
		t.Errorf("answer %+v, ratings has seen %q", a, seen)
	}
}

// Every problem is reported and gives a non-zero exit status.
func TestVisitFails(t *testing.T) {
	for _, c := range []struct {
		name    string
		sidecar func(service string, w http.ResponseWriter, r *http.Request) bool
		line    string
		problem string
	}{
		{"plain text", func(string, http.ResponseWriter, *http.Request) bool { return true },
			"└─ 1 × ─► ratings   plain text",
			"details was called in plain text by page; reviews was called in plain text by page; " +
				"ratings was called in plain text by reviews"},
		{"denied", func(service string, w http.ResponseWriter, r *http.Request) bool {
			if service == "ratings" {
				http.Error(w, "RBAC: access denied", http.StatusForbidden)
				return false
			}
			return mutual(service, w, r)
		}, "ratings   no answer: 403 Forbidden RBAC: access denied", "ratings has not answered reviews"},
		{"another's certificate", func(service string, w http.ResponseWriter, r *http.Request) bool {
			if service == "ratings" {
				r.Header.Set(callerHeader, "details")
			}
			return mutual(service, w, r)
		}, "ratings   shop/details", "ratings was called by reviews, and has seen the certificate of " +
			identity("details")},
		{"no shop", func(_ string, w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprintln(w, "<html>")
			return false
		}, "no answer: it is no service of the shop that answers", "has not answered visitor"},
	} {
		m := newMesh(t, c.sidecar)
		var out bytes.Buffer
		status := run([]string{"visit", m.at["page"]}, &out, &out)
		if status != 1 || !strings.Contains(out.String(), c.line) ||
			!strings.HasSuffix(strings.TrimSpace(out.String()), c.problem) {
			t.Errorf("%s: exit status %d\n%s", c.name, status, out.String())
		}
	}
}

// Requests that went another way are drawn side by side.
func TestPictureOfVersions(t *testing.T) {
	p := &picture{}
	for _, version := range []string{"v2", "v1", "v1"} {
		p.add(answer{Service: "page", Calls: []answer{{Service: "reviews", Version: version,
			Caller: &certificate{URI: identity("page"), Hash: "ab"}}}})
	}
	var out strings.Builder
	p.draw(&out)
	for _, line := range []string{"3 × ─► page", "├─ 2 × ─► reviews v1", "└─ 1 × ─► reviews v2"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no %q in\n%s", line, out.String())
		}
	}
}

func TestGet(t *testing.T) {
	m := newMesh(t, mutual)
	gone := httptest.NewServer(nil)
	gone.Close()
	for url, want := range map[string]struct {
		status int
		text   string
	}{
		m.at["ratings"]:             {0, `200 OK, from no proxy: {`},
		m.at["ratings"] + "healthz": {0, "200 OK, from no proxy: ok\n"},
		m.at["ratings"] + "other":   {1, "404 Not Found, from no proxy: 404 page not found\n"},
		gone.URL:                    {1, "no answer: "},
	} {
		var out bytes.Buffer
		if status := run([]string{"get", url}, &out, &out); status != want.status ||
			!strings.HasPrefix(out.String(), want.text) {
			t.Errorf("%s: exit status %d, %q; want %d, %q", url, status, out.String(), want.status, want.text)
		}
	}
}

// The JSON of an answer can be parsed again.
func TestAnswer(t *testing.T) {
	m := newMesh(t, mutual)
	response, err := http.Get(m.at["details"])
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var a answer
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil || a.Pod != "details-1" || a.Says == "" {
		t.Errorf("%+v, error %v", a, err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"serve"}, {"serve", "page", "details"}, {"get"}, {"other", "x"},
		{"visit", "-n", "0", "http://x/"}, {"visit", "-n", "many", "http://x/"}} {
		var out, errs bytes.Buffer
		if status := run(args, &out, &errs); status != 2 || out.Len() > 0 || errs.Len() == 0 {
			t.Errorf("%q: exit status %d, %q, %q", args, status, out.String(), errs.String())
		}
	}
	var errs bytes.Buffer
	want := "shop: role: invalid value \"cart\"; valid: details, page, ratings, reviews, visitor\n"
	if status := run([]string{"serve", "cart"}, &errs, &errs); status != 2 || errs.String() != want {
		t.Errorf("exit status %d, %q", status, errs.String())
	}
}

// Every service that a role calls exists, and the page reaches all of them.
func TestRoles(t *testing.T) {
	reached := map[string]bool{}
	var follow func(name string)
	follow = func(name string) {
		if _, known := roles[name]; !known {
			t.Errorf("there is no %s", name)
		}
		reached[name] = true
		for _, peer := range roles[name].calls {
			follow(peer)
		}
	}
	follow("page")
	if got := slices.Sorted(maps.Keys(reached)); len(got) != len(roles)-1 || reached["visitor"] {
		t.Errorf("the page leads to %q", got)
	}
}
