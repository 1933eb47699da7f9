package invalid

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestError(t *testing.T) {
	for want, err := range map[string]error{
		`--mode: invalid value "all"; valid: any or probe`:     Text("--mode", "all", "", "any or probe"),
		`proxyUID: invalid value "0": root; valid: another`:    Text("proxyUID", "0", "root", "another"),
		`selection: invalid value 5: not a string; valid: "a"`: JSON("selection", "5", "not a string", `"a"`),
		`name: invalid value "a\nb"; valid: one line`:          Text("name", "a\nb", "", "one line"),
		`list: invalid value [1,…; valid: a shorter list of ports`: JSON("list", "[1,"+strings.Repeat("2", 253), "",
			"a shorter list of ports"),
	} {
		if err.Error() != want {
			t.Errorf("%s\nwant %s", err, want)
		}
		if !Is(err) || !Is(fmt.Errorf("reading: %w", err)) {
			t.Errorf("%v is not found", err)
		}
	}
	if Is(errors.New("x: invalid value 5; valid: 6")) || Is(nil) {
		t.Error("something else is found")
	}
}

// An annotation may have 256 KiB. An error must be short, and must not cut a character in two.
func TestErrorsAreShort(t *testing.T) {
	for _, value := range []string{strings.Repeat("x", 1<<18), strings.Repeat("é", 1<<17),
		"x" + strings.Repeat("é", 1<<17),
		strings.Repeat("\x80", 1<<18)} {
		text := Text("key", value, "problem", "valid").Error()
		if len(text) > 500 || strings.Contains(text, `\xc3`) || !strings.Contains(text, "…") {
			t.Errorf("%d bytes: %q", len(text), text)
		}
	}
	if text := Text("key", strings.Repeat("x", 253), "p", "v").Error(); strings.Contains(text, "…") {
		t.Errorf("cut without need: %q", text)
	}
}
