package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// names is a title in the demo's part about DNS.
const names = "the app asks for names"

// makes runs make demo with these variables, and returns its output.
func makes(t *testing.T, variables ...string) (string, error) {
	t.Helper()
	root, err := filepath.Abs(build.Root())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("make", append([]string{"-C", root, "demo", "NO_COLOR=1"}, variables...)...)
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=") // without the variables of an outer make
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// make demo accepts several words for yes and no as DNS=.
func TestDNS(t *testing.T) {
	for value, shown := range map[string]bool{"on": true, "no": false} {
		out, err := makes(t, "DNS="+value)
		if err != nil || strings.Contains(out, names) != shown {
			t.Errorf("DNS=%s: %v, names are shown: %t\n%s", value, err, !shown, out)
		}
	}
}

// An invalid value is rejected, and the error names the valid ones.
func TestRefused(t *testing.T) {
	for variable, want := range map[string]string{
		"DNS=perhaps": `--dns: invalid value "perhaps"`, "BACKEND=nft": `--backend: invalid value "nft"`,
		"MODE=NONE": `--mode: invalid value "NONE"`, "FAMILIES=64": `--families: invalid value "64"`,
	} {
		out, err := makes(t, variable)
		if err == nil || !strings.Contains(out, want) || !strings.Contains(out, "Valid: ") {
			t.Errorf("%s: %v\n%s", variable, err, out)
		}
	}
}
