package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// helmTakes renders a release's chart from the registry with both Helms, as docs/cluster.md installs it.
func helmTakes(t *testing.T, root, registry, version string) {
	t.Helper()
	c, err := readChart(root)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := exec.Command("../helm.sh").Output() // it builds them at its first run
	if err != nil {
		t.Fatalf("helm.sh: %v", err)
	}
	for _, helm := range []string{"helm3", "helm4"} {
		render := exec.Command(filepath.Join(strings.TrimSpace(string(dir)), helm), "template", c.Name,
			"oci://"+registry+"/"+c.Name, "--version", version, "--plain-http")
		render.Env = append(os.Environ(), "HOME="+t.TempDir()) // without the user's credentials and cache
		if out, err := render.CombinedOutput(); err != nil || !strings.Contains(string(out), "\nkind: ") {
			t.Errorf("%q: %v\n%s", render.Args[1:], err, out)
		}
	}
}
