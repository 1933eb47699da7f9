package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tree is the repository whose own release is built. scripts/release-trial.sh sets it.
var tree = flag.String("tree", "", "`repository` whose release TestTree makes twice, on trial")

// toolOn is the platform of the operator's tool in a trial. Other platforms take minutes each, because nothing else
// here is built for them.
const toolOn = "linux/amd64"

// TestTree prepares the checked-out commit as docs/releasing.md says, and builds its release with the commands there:
// twice, from two clones, with the same bytes. A change to it is detected, and so is another key.
func TestTree(t *testing.T) {
	if *tree == "" {
		t.Skip("scripts/release-trial.sh runs it")
	}
	root, version := releasable(t)
	private, public := key(t, "secret")
	env := map[string]string{privateKeyEnv: private, passwordEnv: "secret"}
	pub := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(pub, []byte(public), 0o644); err != nil {
		t.Fatal(err)
	}
	makes(t, root, env, "release", "VERSION="+version, "TOOL="+toolOn)
	dir := filepath.Join(root, "dist", "release", version)
	files := releaseFiles(t, dir)
	var want []string
	for _, name := range files {
		want = append(want, strings.ReplaceAll(name, version, "VERSION"))
	}
	if got := strings.Join(want, "\n"); got != trialFiles {
		t.Errorf("the release has\n%s\nwant\n%s", got, trialFiles)
	}
	t.Run("papers", func(t *testing.T) { plainPapers(t, root, dir, version, files) })
	t.Run("check", func(t *testing.T) {
		said := makes(t, root, nil, "release-check", "VERSION="+version, "KEY="+pub)
		if !strings.Contains(said, "files are the same byte for byte") {
			t.Error(said)
		}
	})
	t.Run("registry", func(t *testing.T) { inRegistry(t, root, version, env, pub) })
	t.Run("changes", func(t *testing.T) { changes(t, root, dir, pub, files) })
	t.Run("record", func(t *testing.T) {
		refuses(t, 1, "is a trial: its istio-pod-networkctl is for linux/amd64 alone", root, nil, "record", "--key", pub)
	})
}

// trialFiles are all files of a trial.
const trialFiles = `RELEASE_NOTES.md
SHA256SUMS
SHA256SUMS.sig
istio-pod-network-agent-VERSION-oci.tar
istio-pod-network-agent-VERSION.spdx.json
istio-pod-network-controller-VERSION-oci.tar
istio-pod-network-controller-VERSION.tgz
istio-pod-network-plugin-VERSION-oci.tar
istio-pod-network-plugin-VERSION.spdx.json
istio-pod-networkctl-VERSION-linux-amd64.tar.gz
istio-pod-networkctl-VERSION.spdx.json
provenance.json`

// releasable returns a clone of the tree whose changelog has a section for the tree's version.
func releasable(t *testing.T) (root, version string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "tree")
	git(t, *tree, "clone", "--quiet", "--no-hardlinks", *tree, root)
	c, err := readChart(root)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "CHANGELOG.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := section(string(text), c.Version); err != nil {
		const unreleased = "## Unreleased\n"
		named := strings.Replace(string(text), unreleased, unreleased+"\n## "+c.Version+" - 2024-02-03\n", 1)
		if err := os.WriteFile(path, []byte(named), 0o644); err != nil {
			t.Fatal(err)
		}
		commit(t, root)
	}
	return root, c.Version
}

// makes runs a target of the tree's Makefile with this key, and returns its output.
func makes(t *testing.T, root string, key map[string]string, target ...string) string {
	t.Helper()
	cmd := exec.Command("make", append([]string{"-C", root}, target...)...)
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=") // without the variables of an outer make
	for name, value := range key {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make %q: %v\n%s", target, err, out)
	}
	t.Logf("make %s\n%s", strings.Join(target, " "), out)
	return string(out)
}

// releaseFiles returns the names of all files in a directory.
func releaseFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
