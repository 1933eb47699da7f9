package invalid

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestError(t *testing.T) {
	for want, err := range map[string]error{
		`--mode: invalid value "all"; valid: any or probe`:         Text("--mode", "all", "", "any or probe"),
		`proxyUID: invalid value "0": root; valid: another`:        Text("proxyUID", "0", "root", "another"),
		`selection: invalid value 5: not a string; valid: "a"`:     JSON("selection", "5", "not a string", `"a"`),
		`name: invalid value "a\nb"; valid: one line`:              Text("name", "a\nb", "", "one line"),
		`list: invalid value [1,…; valid: a shorter list of ports`: JSON("list", "[1,"+strings.Repeat("2", 253), "", "a shorter list of ports"),
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
	name := strings.Repeat("n", 253) // as long as a name can be
	if text := Text("key", name, "", "another").Error(); !strings.Contains(text, name) {
		t.Errorf("a name is cut: %s", text)
	}
}
