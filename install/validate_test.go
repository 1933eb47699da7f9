package install

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An entry is refused if the plugin says so, or cannot be run; nothing else that it reports keeps it from being
// installed.
func TestValidate(t *testing.T) {
	for name, c := range map[string]struct{ program, refused string }{
		"takes it":          {"grep -q '\"cniVersion\":\"1.1.0\"'", ""},
		"reads it as it is": {`grep -q '"mtu":1e4'`, ""},
		"is asked STATUS":   {`[ "$CNI_COMMAND" = STATUS ]`, ""},
		"by the installer":  {`[ "$ISTIO_POD_NETWORK_INSTALLER" = 1 ]`, ""},
		"refuses it": {`echo '{"code": 7, "msg": "backend: invalid value \"x\"; valid: auto"}'; exit 1`,
			`network configuration: backend: invalid value "x"; valid: auto`},
		"is not ready":          {`echo '{"code": 50, "msg": "no agent"}'; exit 1`, ""},
		"says nothing":          {"exit 3", "running the plugin"},
		"is of another machine": {"", "exec format error"},
		"is no executable":      {"-", "permission denied"},
	} {
		source := filepath.Join(t.TempDir(), "plugin")
		text, mode := "#!/bin/sh\n"+c.program+"\n", os.FileMode(0o755)
		switch c.program {
		case "":
			text = "\x7fELF of another machine"
		case "-":
			mode = 0o644
		}
		if err := os.WriteFile(source, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		entry := parsed([]byte(`{"type": "istio-pod-network", "mtu": 1e4}`))
		err := Validate(context.Background(), Config{Source: source, Entry: entry})
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %v, want %q", name, err, c.refused)
		}
	}
	if err := Validate(context.Background(), Config{Entry: parsed(ours)}); err != nil {
		t.Errorf("nobody to ask: %v", err)
	}
}
