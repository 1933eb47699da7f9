// Package health answers the kubelet's probes and Prometheus. Everybody who reaches the node can reach its port. So no
// request and no number of connections may bring the agent down, or keep the kubelet's probes away.
package health

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one check of /readyz or /healthz.
type Check struct {
	Name string
	Run  func() (ok bool, detail string)
}

// Pass reports whether all checks pass.
func Pass(checks []Check) bool {
	return !slices.ContainsFunc(checks, func(c Check) bool { ok, _ := c.Run(); return !ok })
}

// Handler returns the handler of /healthz, /readyz and /metrics.
func Handler(metrics prometheus.Gatherer, healthy, ready []Check) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", report(healthy))
	mux.Handle("GET /readyz", report(ready))
	mux.Handle("GET /metrics", inTurn(promhttp.HandlerFor(metrics, promhttp.HandlerOpts{DisableCompression: true})))
	return mux
}

// report returns a handler that answers with a line per check. The status is 503 unless all checks pass.
func report(checks []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var text strings.Builder
		status := http.StatusOK
		for _, c := range checks {
			ok, detail := c.Run()
			sign := "+"
			if !ok {
				sign, status = "-", http.StatusServiceUnavailable
			}
			fmt.Fprintf(&text, "[%s] %s: %s\n", sign, c.Name, detail)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprint(w, text.String())
	})
}

// inTurn returns a handler that serves one request at a time. It sends an answer only when it is complete, so a client
// that reads slowly does not delay others.
func inTurn(h http.Handler) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case turn <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		answer := &answer{ResponseWriter: w, status: http.StatusOK}
		func() {
			defer func() { <-turn }()
			h.ServeHTTP(answer, r)
		}()
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body.Bytes())
	})
}

// answer is a response that has not been sent yet.
type answer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// WriteHeader stores the status.
func (a *answer) WriteHeader(status int) { a.status = status }

// Write stores the body.
func (a *answer) Write(data []byte) (int, error) { return a.body.Write(data) }
