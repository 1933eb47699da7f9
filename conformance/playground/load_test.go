package main

import (
	"archive/tar"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// node stores what was loaded into it.
type node struct {
	got  string
	fail error
}

func (n *node) Import(archive string) error {
	data, err := os.ReadFile(archive)
	n.got = string(data)
	return errors.Join(err, n.fail)
}

// up returns a cluster of these nodes.
func up(t *testing.T, nodes ...*node) playground {
	t.Helper()
	p := playground{dir: t.TempDir()}
	l, err := net.Listen("unix", cluster.LoadSocket(p.dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go cluster.TakeImages(l, p.dir, nodes)
	return p
}

func TestLoad(t *testing.T) {
	a, b := &node{}, &node{}
	p := up(t, a, b)
	if err := p.load(strings.NewReader("archive")); err != nil || a.got != "archive" || b.got != "archive" {
		t.Errorf("%v: %q and %q", err, a.got, b.got)
	}
	program := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(program, []byte("machine code"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := p.loadFile(program, "app:1"); err != nil {
		t.Fatal(err)
	}
	all, list := a.got, map[string]string{}
	for r := tar.NewReader(strings.NewReader(all)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		text, readErr := io.ReadAll(r)
		if err != nil || readErr != nil {
			t.Fatal(err, readErr)
		}
		list[header.Name] = string(text)
	}
	if !strings.Contains(list["manifest.json"], "docker.io/library/app:1") ||
		!strings.Contains(list["layer.tar"], "machine code") || !strings.Contains(list["config.json"], `"/app"`) {
		t.Errorf("%q", list)
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, "*.tar")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestLoadRefused(t *testing.T) {
	p := up(t, &node{}, &node{fail: errors.New("no such layer")})
	if err := p.load(strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "no such layer") {
		t.Errorf("%v", err)
	}
	if err := p.loadFile(filepath.Join(p.dir, "none.tar"), ""); err == nil || !strings.Contains(err.Error(), "none.tar") {
		t.Errorf("%v", err)
	}
	down := playground{dir: t.TempDir()}
	if err := down.load(strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
}

func TestFullName(t *testing.T) {
	for name, want := range map[string]string{
		"app":                      "docker.io/library/app:latest",
		"app:1":                    "docker.io/library/app:1",
		"team/app:1":               "docker.io/team/app:1",
		"registry.example/app":     "registry.example/app:latest",
		"localhost:5000/team/app":  "localhost:5000/team/app:latest",
		"localhost/app:2":          "localhost/app:2",
		"docker.io/library/app:v3": "docker.io/library/app:v3",
	} {
		if got := fullName(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
