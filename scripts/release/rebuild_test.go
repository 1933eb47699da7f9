package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// someParts checks that parts that are built alone are the same, and are no release.
func someParts(t *testing.T, root, dir string) {
	only := filepath.Join(t.TempDir(), "only")
	mustRelease(t, root, nil, "build", "--only", "images,chart", "--dir", only)
	want, err := sumAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := sumAll(only)
	if err != nil || len(got) != 6 {
		t.Errorf("%d files, error %v", len(got), err)
	}
	for name, sum := range got {
		if want[name] != sum {
			t.Errorf("%s is another one than in the release", name)
		}
	}
	refuses(t, 3, sumsFile, root, nil, "verify", "--unsigned", "--dir", only)
}

// rebuild checks that images and chart of a listed release can be rebuilt if its commit exists.
func rebuild(t *testing.T, root string) {
	refuses(t, 2, "docs/releases.json has no 1.2.2", root, nil, "rebuild", "--version", "1.2.2")
	said := mustRelease(t, root, nil, "rebuild")
	if made, err := sumAll(filepath.Join(root, "dist", "rebuilt", "1.2.3")); err != nil || len(made) != 6 ||
		!strings.Contains(said, "6 files of 1.2.3 are in ") {
		t.Errorf("%d files, error %v\n%s", len(made), err, said)
	}
	commit(t, root) // the list
	shallow := filepath.Join(t.TempDir(), "shallow")
	git(t, root, "clone", "--quiet", "--depth", "1", "file://"+root, shallow)
	refuses(t, 3, "which this shallow clone does not have; get it by: git fetch --unshallow", shallow, nil, "rebuild")
	git(t, shallow, "fetch", "--quiet", "--unshallow")
	list := filepath.Join(shallow, listFile)
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	l, err := readList(shallow)
	if err != nil {
		t.Fatal(err)
	}
	branch := strings.Replace(string(text), l.Releases[0].Commit, "main", 1)
	if err := os.WriteFile(list, []byte(branch), 0o644); err != nil {
		t.Fatal(err)
	}
	refuses(t, 3, `commit "main"`, shallow, nil, "rebuild")
	for from, why := range map[string]string{
		l.Releases[0].Commit:                   "which this clone does not have",
		l.Releases[0].Files["small-1.2.3.tgz"]: "small-1.2.3.tgz: SHA-256 0000",
	} {
		other := strings.ReplaceAll(string(text), from, strings.Repeat("0", len(from)))
		if err := os.WriteFile(list, []byte(other), 0o644); err != nil {
			t.Fatal(err)
		}
		refuses(t, 1, why, shallow, nil, "rebuild")
	}
}
