package apiserver

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
)

// Setting trouble breaks a watch. Ending it does not: a client that had reconnected would have to wait for its backoff.
func TestGate(t *testing.T) {
	more := make(chan string)
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case line := <-more:
				_, _ = fmt.Fprintln(w, line)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	defer behind.Close()
	target, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{proxy: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1}}
	g.Set(Trouble{})
	front := httptest.NewServer(g)
	defer front.Close()
	go func() { more <- "begun" }()
	response, err := http.Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	if !lines.Scan() {
		t.Fatal(lines.Err())
	}
	g.Set(Trouble{})
	go func() {
		select {
		case more <- "still there":
		case <-t.Context().Done():
		}
	}()
	if !lines.Scan() || lines.Text() != "still there" {
		t.Fatalf("the end of trouble has broken a watch: %v", lines.Err())
	}
	g.Set(Trouble{Status: http.StatusInternalServerError})
	if lines.Scan() || lines.Err() == nil {
		t.Errorf("trouble has broken no watch: %q", lines.Text())
	}
}
