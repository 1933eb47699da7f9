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

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// condition is one thing that /readyz looks at.
type condition struct {
	name  string
	holds func() (ok bool, detail string)
}

// serveHTTP answers /healthz, /readyz and /metrics until the context ends.
func serveHTTP(ctx context.Context, l net.Listener, m *metrics, healthy, ready []condition) error {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", report(healthy))
	mux.Handle("GET /readyz", report(ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	server := http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// report answers with a line per condition, and 503 unless all hold.
func report(conditions []condition) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var text strings.Builder
		status := http.StatusOK
		for _, c := range conditions {
			ok, detail := c.holds()
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

// hold reports whether all conditions do.
func hold(conditions []condition) bool {
	return !slices.ContainsFunc(conditions, func(c condition) bool { ok, _ := c.holds(); return !ok })
}
