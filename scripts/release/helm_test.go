package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// helmTakes has both Helms render the chart of a release from the registry, as docs/cluster.md installs it.
func helmTakes(t *testing.T, root, registry, version string) {
	t.Helper()
	c, err := readChart(root)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := exec.Command("../helm.sh").Output() // which builds them once
	if err != nil {
		t.Fatalf("helm.sh: %v", err)
	}
	for _, helm := range []string{"helm3", "helm4"} {
		render := exec.Command(filepath.Join(strings.TrimSpace(string(dir)), helm), "template", c.Name,
			"oci://"+registry+"/"+c.Name, "--version", version, "--plain-http")
		render.Env = append(os.Environ(), "HOME="+t.TempDir()) // credentials and a cache that are nobody's
		if out, err := render.CombinedOutput(); err != nil || !strings.Contains(string(out), "\nkind: ") {
			t.Errorf("%q: %v\n%s", render.Args[1:], err, out)
		}
	}
}
