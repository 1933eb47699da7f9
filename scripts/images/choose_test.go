package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// fake puts a program of that name first in PATH. It builds nothing: it ends with that status.
func fake(t *testing.T, dir, name string, status int) {
	t.Helper()
	script := fmt.Sprintf("#!/bin/sh\necho %s: no cgroup >&2\nexit %d\n", name, status)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// A tool is chosen if it can run something in a build, whatever it says of itself.
func TestChosenByTrying(t *testing.T) {
	golang, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want  string
		tools map[string]int // and how they end
	}{
		{"docker", map[string]int{"docker": 0, "podman": 0}},
		{"podman", map[string]int{"docker": 1, "podman": 0}},
		{"none", map[string]int{"docker": 1, "podman": 1, "buildah": 125}},
		{"none", nil},
	} {
		dir := t.TempDir()
		t.Setenv("PATH", dir+":"+filepath.Dir(golang))
		for name, status := range c.tools {
			fake(t, dir, name, status)
		}
		o := given(t)
		o.builder = "auto"
		b, err := o.chooseBuilder(context.Background())
		if err != nil || b.name() != c.want {
			t.Errorf("of %v: %v, error %v, want %s", c.tools, b, err, c.want)
		}
	}
	o := given(t)
	o.builder = "podman"
	if b, err := o.chooseBuilder(context.Background()); err == nil {
		t.Errorf("not installed, and chosen all the same: %v", b)
	}
}

// What is built offline on a base of this machine's has a store of its own: a registry's base has the same name.
func TestStores(t *testing.T) {
	online, err := buildah{options{}}.store()
	if err != nil {
		t.Fatal(err)
	}
	if offline, err := (buildah{options{offline: true}}).store(); err != nil || offline == online {
		t.Errorf("%s, error %v", offline, err)
	}
}

// A tool that can run something and cannot have the base of the Dockerfiles does not keep the images from being built.
func TestBuiltWithoutTheTool(t *testing.T) {
	golang, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+filepath.Dir(golang)+":/usr/bin:/bin")
	script := "#!/bin/sh\ncase $* in *buildx*Dockerfile.*) echo no such base >&2; exit 1 ;; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	o := given(t)
	o.builder = "auto"
	if err := o.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, i := range images {
		if _, err := readArchive(filepath.Join(o.output, i.name+".tar"), t.TempDir()); err != nil {
			t.Error(err)
		}
	}
}
