package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// names is what the demo shows of DNS.
const names = "the app asks for names"

// makes runs make demo with these variables, and returns what it prints.
func makes(t *testing.T, variables ...string) (string, error) {
	t.Helper()
	root, err := filepath.Abs(build.Root())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("make", append([]string{"-C", root, "demo", "NO_COLOR=1"}, variables...)...)
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=") // of no other make
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// DNS= of make demo does what it says, whichever word for yes or no it is given.
func TestDNS(t *testing.T) {
	for value, shown := range map[string]bool{"on": true, "no": false} {
		out, err := makes(t, "DNS="+value)
		if err != nil || strings.Contains(out, names) != shown {
			t.Errorf("DNS=%s: %v, names are shown: %t\n%s", value, err, !shown, out)
		}
	}
}

// A value that is none is refused, and the valid ones are named.
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
