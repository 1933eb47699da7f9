package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// check is one thing that /readyz or /healthz looks at.
type check struct {
	name string
	run  func() (ok bool, detail string)
}

// serveHTTP answers /healthz, /readyz and /metrics until the context ends.
func serveHTTP(ctx context.Context, l net.Listener, metrics prometheus.Gatherer, healthy, ready []check) error {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", report(healthy))
	mux.Handle("GET /readyz", report(ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	server := http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// report answers with a line per check, and 503 unless all pass.
func report(checks []check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var text strings.Builder
		status := http.StatusOK
		for _, c := range checks {
			ok, detail := c.run()
			sign := "+"
			if !ok {
				sign, status = "-", http.StatusServiceUnavailable
			}
			fmt.Fprintf(&text, "[%s] %s: %s\n", sign, c.name, detail)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprint(w, text.String())
	})
}

// allPass reports whether all checks do.
func allPass(checks []check) bool {
	return !slices.ContainsFunc(checks, func(c check) bool { ok, _ := c.run(); return !ok })
}
