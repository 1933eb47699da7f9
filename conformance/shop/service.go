package main

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// role is what a service of the shop does.
type role struct {
	says  string
	calls []string // services in the same namespace
}

var roles = map[string]role{
	"page":    {says: "A teapot. Pours.", calls: []string{"details", "reviews"}},
	"details": {says: "Stoneware, 0.9 l, 780 g"},
	"reviews": {says: "“No drips.” “The lid rattles.”", calls: []string{"ratings"}},
	"ratings": {says: "4 of 5"},
	"visitor": {says: "I am not in the mesh"},
}

func names() iter.Seq[string] { return maps.Keys(roles) }

// maxAnswer is the largest part of an answer that is read, in bytes.
const maxAnswer = 1 << 20

// answer is what a service says of one request, as JSON.
type answer struct {
	Service string `json:"service"`
	Version string `json:"version,omitempty"`
	Pod     string `json:"pod,omitempty"`
	Says    string `json:"says,omitempty"`
	// Caller is what the service's sidecar has verified of the caller's certificate; nil if there was none.
	Caller *certificate `json:"caller,omitempty"`
	Calls  []answer     `json:"calls,omitempty"`
	// Error is why the service has not answered.
	Error string `json:"error,omitempty"`
}

// service is a running service.
type service struct {
	name, pod, version string
	role
	client  *http.Client
	address func(peer string) string // returns another service's URL
}

// passedOn are headers by which sidecars and their logs identify a request. The services pass them on, as every app in
// a mesh should.
var passedOn = []string{"X-Request-Id", "Traceparent", "Tracestate"}

func (s service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		headers := http.Header{}
		for _, name := range passedOn {
			if value := r.Header.Get(name); value != "" {
				headers.Set(name, value)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(answer{Service: s.name, Version: s.version, Pod: s.pod, Says: s.says,
			Caller: callerOf(r.Header), Calls: s.call(headers)}) // the client may be gone
	})
	return mux
}

// call calls all services that this one needs, at the same time.
func (s service) call(headers http.Header) []answer {
	answers := make([]answer, len(s.calls))
	var all sync.WaitGroup
	for i, peer := range s.calls {
		all.Go(func() {
			answers[i] = ask(s.client, s.address(peer), headers)
			if answers[i].Error != "" {
				answers[i].Service = peer
			}
		})
	}
	all.Wait()
	return answers
}

// ask sends one request to a service of the shop.
func ask(client *http.Client, address string, headers http.Header) answer {
	fail := func(format string, args ...any) answer {
		name := address
		if u, err := url.Parse(address); err == nil {
			name = u.Host
		}
		return answer{Service: name, Error: fmt.Sprintf(format, args...)}
	}
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return fail("%v", err)
	}
	request.Header = headers.Clone()
	response, err := client.Do(request)
	if err != nil {
		return fail("%v", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fail("%v", err)
	}
	if response.StatusCode != http.StatusOK {
		return fail("%s", strings.TrimSpace(response.Status+" "+string(body)))
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil || a.Service == "" {
		return fail("it is no service of the shop that answers")
	}
	return a
}
