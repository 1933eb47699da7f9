package trace_test

import (
	"testing"

	"github.com/istio-pod-network/controller/plugin/trace/tracetest"
)

// wrongSteps are walks that are no kernel's, each by one change of a source file.
var wrongSteps = []struct{ what, file, right, wrong string }{
	{"nat judges what comes back by lo again", "walk.go", "w.conn.judged = true\n\tif out := w.route()",
		"w.conn.judged = false\n\tif out := w.route()"},
	{"nat judges after the guard", "walk.go", "placeNAT       = -100", "placeNAT       = 100"},
	{"nat judges what is known", "walk.go", "case w.conn.judged:\n", "case w.conn.judged && w.conn.reply:\n"},
	{"connection tracking comes before raw", "walk.go", "placeConntrack = -200", "placeConntrack = -400"},
	{"no route by mark", "walk.go", "r.Mark == w.packet.Mark", "r.Mark == 0"},
	{"a return is none", "walk.go", "return back", "return next"},
	{"a redirection keeps the address", "nat.go", "return netip.AddrFrom4([4]byte{127, 0, 0, 1})\n\t}\n\tif address",
		"return w.packet.Dest.Addr()\n\t}\n\tif address"},
	{"the original destination is the last one", "walk.go", "w.way.Original = w.conn.original\n\t}\n\tw.way.Landed",
		"w.way.Original = w.packet.Dest\n\t}\n\tw.way.Landed"},
	{"TPROXY does without a listener", "walk.go", "if w.pod.NoInbound ||", "if"},
	{"a mark is not kept", "walk.go", "w.packet.Mark = uint32(t)", "w.packet.Mark = 0"},
	{"a connection's mark is not kept", "walk.go", "w.conn.mark = w.packet.Mark", "w.conn.mark = 0"},
	{"everything opens a connection", "match.go", "p.Proto == redirect.TCP && !p.Later", "p.Proto == redirect.TCP"},
	{"a range ends before its last port", "match.go", "port <= r.Last", "port < r.Last"},
	{"no prefixes of names", "match.go", "isPrefix && strings.HasPrefix(name, prefix)",
		"isPrefix && strings.EqualFold(name, prefix)"},
	{"the group is the user", "match.go", "owner.GID == redirect.ID(m)", "owner.UID == redirect.ID(m)"},
	{"what has no socket is everybody's", "match.go", `return "no socket of the pod sends it"`, `return ""`},
	{"an answer goes its connection's way", "match.go", "if w.conn.reply {", "if w.conn.reply && !w.conn.known {"},
}

// TestWrongStepsAreFound makes the walk wrong at one step after the other, and has TestAgreesWithTheModel find it. What
// the model knows nothing of, the kernel tells: TestWrongStepsBesideOthers of package netfilter.
func TestWrongStepsAreFound(t *testing.T) {
	for _, step := range wrongSteps {
		t.Run(step.what, func(t *testing.T) {
			its := tracetest.WrongStep{What: step.what, File: step.file, Right: step.right, Wrong: step.wrong}
			its.IsFound(t, ".", "TestAgreesWithTheModel")
		})
	}
}
