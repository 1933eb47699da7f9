package agent

import (
	"net/http/httptest"
	"testing"
)

// Every check has a line, whether it passes or not, and one that does not is enough.
func TestReport(t *testing.T) {
	good := check{"good", func() (bool, string) { return true, "fine" }}
	bad := check{"bad", func() (bool, string) { return false, "missing" }}
	for _, c := range []struct {
		checks []check
		status int
		text   string
	}{
		{nil, 200, ""},
		{[]check{good}, 200, "[+] good: fine\n"},
		{[]check{good, good}, 200, "[+] good: fine\n[+] good: fine\n"},
		{[]check{bad, good}, 503, "[-] bad: missing\n[+] good: fine\n"},
		{[]check{good, bad}, 503, "[+] good: fine\n[-] bad: missing\n"},
	} {
		w := httptest.NewRecorder()
		report(c.checks).ServeHTTP(w, nil)
		if w.Code != c.status || w.Body.String() != c.text || allPass(c.checks) != (c.status == 200) {
			t.Errorf("%d %q, want %d %q", w.Code, w.Body, c.status, c.text)
		}
	}
}
