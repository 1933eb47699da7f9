package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// fake puts a program of that name first in PATH. It only ends with that status.
func fake(t *testing.T, dir, name string, status int) {
	t.Helper()
	script := fmt.Sprintf("#!/bin/sh\necho %s: no cgroup >&2\nexit %d\n", name, status)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// A tool is chosen if it can run a program in a build, whatever its client says.
func TestChosenByTrying(t *testing.T) {
	golang, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want  string
		tools map[string]int // exit status by tool
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

// On every machine, --builder=auto pushes both images, built by the first tool that can build here. No tool can reach
// another registry, so that a build does not take that long.
func TestChosenHere(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		t.Setenv(name, "http://127.0.0.1:9") // a port where nothing answers
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	o := given(t)
	o.builder, o.push = "auto", strings.TrimPrefix(server.URL, "http://")
	b, err := o.chooseBuilder(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s is chosen", b.name())
	if chosen, is := b.(tool); is {
		trial, err := o.makeTrial(t.Context())
		if err == nil {
			err = chosen.try(t.Context(), trial)
		}
		if err != nil {
			t.Errorf("%s is chosen and does not work: %v", b.name(), err)
		}
	}
	if err := o.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, i := range images {
		at, err := name.NewTag(o.push + "/" + i.name + ":v1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := remote.Image(at); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// Offline builds have a store of their own, because their base has the name of a registry's image, as in the
// Dockerfiles.
func TestStores(t *testing.T) {
	for _, i := range (options{shop: true}).images() {
		text, err := os.ReadFile(filepath.Join("..", "..", i.dockerfile))
		if err != nil {
			t.Fatal(err)
		}
		base, err := given(t).golang()
		from, version, _ := strings.Cut(base, ":")
		if err != nil || !strings.Contains(string(text), "\nARG GO_VERSION="+version+"\nFROM --platform=$BUILDPLATFORM "+from+
			":${GO_VERSION} AS build\n") {
			t.Errorf("%s does not build on %s, error %v", i.dockerfile, base, err)
		}
	}
	online, err := buildah{options{}}.store()
	if err != nil {
		t.Fatal(err)
	}
	if offline, err := (buildah{options{offline: true}}).store(); err != nil || offline == online {
		t.Errorf("%s, error %v", offline, err)
	}
}

// If a tool can run a program but cannot get the base, the images are built without it.
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
