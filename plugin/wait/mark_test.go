package wait

import (
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
)

func TestReadMark(t *testing.T) {
	own := record.NetNS("0e1f/4026532290/8193")
	old := own.WithoutCookie()
	const reason = annotation.Reason
	for _, c := range []struct {
		name  string
		own   record.NetNS
		flags []string
		lines []string
		want  state
		says  string
	}{
		{"nothing", own, nil, nil, missing, statusKey + " is absent"},
		{"initialized", own, nil, marked("initialized", own), ready, "initialized"},
		{"pasted status", own, nil, []string{line(statusKey, "initialized")}, missing, "may be pasted or stale"},
		{"empty netns", own, nil, marked("initialized", ""), missing, "another kernel's"},
		{"other cookie, same inode", own, nil, marked("initialized", "0e1f/4026532290/8192"), missing,
			"another network namespace"},
		{"other inode", own, nil, marked("initialized", "0e1f/4026532291/8193"), missing, "another network namespace"},
		{"other boot", own, nil, marked("initialized", "0e2f/4026532290/8193"), missing, "--mode probe"},
		{"longer", own, nil, marked("initialized", own+"4"), missing, "another network namespace"},
		{"shorter", own, nil, marked("initialized", own[:18]), missing, "another network namespace"},
		{"case", own, nil, marked("Initialized", own), missing, `"Initialized", not "initialized"`},
		{"another status", own, nil, marked("failed", own), missing, `"failed"`},
		{"mark without cookie", own, nil, marked("initialized", old), never, "--mode probe"},
		{"another's mark without cookie", own, nil, marked("initialized", "0e1f/1/-"), missing, "another"},
		{"kernel without cookie", old, nil, marked("initialized", old), never, "--mode probe"},
		{"kernel without cookie, no mark", old, nil, nil, missing, statusKey + " is absent"},
		{"kernel without cookie, not required", old, nil, marked("not-required", old, line(reason, "mode-none")), ready,
			`"mode-none"`},
		{"kernel without cookie, no proxy", old, nil, marked("not-required", old, line(reason, "opted-in-no-proxy")),
			refused, "istio-proxy"},
		{"kernel without cookie, not required elsewhere", old, nil, marked("not-required", "0e1f/1/-"), missing, "another"},
		{"unknown namespace", "", nil, marked("not-required", ""), never, "unknown"},
		{"not required", own, nil, marked("not-required", own, line(reason, "mode-none")), ready, `"mode-none"`},
		{"not required elsewhere", own, nil, marked("not-required", "0e1f/1/1", line(reason, "mode-none")), missing,
			"another"},
		{"not required, pasted", own, nil, []string{line(statusKey, "not-required")}, missing, "may be pasted"},
		{"no proxy", own, nil, marked("not-required", own, line(reason, "opted-in-no-proxy")), refused, "istio-proxy"},
		{"no proxy elsewhere", own, nil, marked("not-required", "0e1f/1/1", line(reason, "opted-in-no-proxy")), missing,
			"another"},
		{"other value", own, []string{"--annotation-value", "done"}, marked("done", own), ready, "done"},
		{"not the other value", own, []string{"--annotation-value", "done"}, marked("initialized", own), missing,
			`not "done"`},
		{"other keys", own, []string{"--annotation-key", "k", "--netns-annotation-key", "n"},
			[]string{line("k", "initialized"), line("n", string(own))}, ready, "k is"},
		{"other keys, default mark", own, []string{"--annotation-key", "k"}, marked("initialized", own), missing,
			"k is absent"},
	} {
		o := parsed(t, c.flags...)
		got := o.readMark(parseAnnotations(strings.Join(c.lines, "\n")), c.own)
		if got.state != c.want || !strings.Contains(got.text, c.says) {
			t.Errorf("%s: want %v, %q, got %v, %q", c.name, c.want, c.says, got.state, got.text)
		}
	}
}
