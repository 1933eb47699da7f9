package trace_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
	{"a redirection keeps the address", "walk.go", "return netip.AddrFrom4([4]byte{127, 0, 0, 1})\n\t}\n\tif address",
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

// TestWrongStepsAreFound makes the walk wrong at one step after the other, and has TestAgreesWithTheModel find it.
func TestWrongStepsAreFound(t *testing.T) {
	dir := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range wrongSteps {
		t.Run(step.what, func(t *testing.T) {
			source, err := os.ReadFile(step.file)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(source), step.right); n != 1 {
				t.Fatalf("%q stands %d times in %s", step.right, n, step.file)
			}
			changed, overlay := filepath.Join(dir, step.file), filepath.Join(dir, "overlay.json")
			replaced, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, step.file): changed}})
			wrong := strings.Replace(string(source), step.right, step.wrong, 1)
			err = errors.Join(err, os.WriteFile(changed, []byte(wrong), 0o600), os.WriteFile(overlay, replaced, 0o600))
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("go", "test", "-vet=off", "-overlay", overlay, "-run", "^TestAgreesWithTheModel$",
				".").CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestAgreesWithTheModel") {
				t.Errorf("not found: %v\n%s", err, out)
			}
		})
	}
}
