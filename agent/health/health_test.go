package health

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/istio-pod-network/controller/internal/fdleak"
	"github.com/prometheus/client_golang/prometheus"
)

func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

// Every check has a line. One check that does not pass is enough for 503.
func TestReport(t *testing.T) {
	good := Check{"good", func() (bool, string) { return true, "fine" }}
	bad := Check{"bad", func() (bool, string) { return false, "missing" }}
	for _, c := range []struct {
		checks []Check
		status int
		text   string
	}{
		{nil, 200, ""},
		{[]Check{good}, 200, "[+] good: fine\n"},
		{[]Check{good, good}, 200, "[+] good: fine\n[+] good: fine\n"},
		{[]Check{bad, good}, 503, "[-] bad: missing\n[+] good: fine\n"},
		{[]Check{good, bad}, 503, "[+] good: fine\n[-] bad: missing\n"},
	} {
		w := httptest.NewRecorder()
		report(c.checks).ServeHTTP(w, nil)
		if w.Code != c.status || w.Body.String() != c.text || Pass(c.checks) != (c.status == 200) {
			t.Errorf("%d %q, want %d %q", w.Code, w.Body, c.status, c.text)
		}
	}
}

// Every path has its handler, and /metrics has the metrics of the registry.
func TestHandler(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "here"}))
	bad := []Check{{"bad", func() (bool, string) { return false, "missing" }}}
	h := Handler(registry, nil, bad)
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/metrics": 200, "/": 404} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
		if body := w.Body.String(); path == "/metrics" && body != "# HELP here \n# TYPE here gauge\nhere 0\n" {
			t.Errorf("%s: %q", path, body)
		}
	}
}

// stalled is a client that does not read the response.
type stalled struct {
	http.ResponseWriter
	writing, taken chan struct{}
}

func (s stalled) Write([]byte) (int, error) { close(s.writing); <-s.taken; return 0, io.ErrClosedPipe }

// One response is made at a time, and a client that does not read its response delays nobody.
func TestInTurn(t *testing.T) {
	working, most := make(chan struct{}, 10), 0
	h := inTurn(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		working <- struct{}{}
		most = max(most, len(working))
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "metrics")
		<-working
	}))
	slow := stalled{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	done := make(chan struct{})
	go func() { defer close(done); h.ServeHTTP(slow, request) }()
	<-slow.writing
	answers := make(chan *httptest.ResponseRecorder)
	for range 20 {
		go func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, request)
			answers <- w
		}()
	}
	for range 20 {
		if w := <-answers; w.Code != http.StatusTeapot || w.Body.String() != "metrics" {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	}
	close(slow.taken)
	<-done
	if most != 1 {
		t.Errorf("%d answers were made at once", most)
	}
}
