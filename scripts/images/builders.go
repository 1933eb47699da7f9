package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// builder makes an image of a Dockerfile for one platform.
type builder interface {
	name() string
	build(ctx context.Context, i imageSpec, p v1.Platform) (v1.Image, error)
}

var builderNames = []string{"auto", "docker", "podman", "buildah", "none"}

// chooseBuilder returns the one that is asked for, or the first that works.
func (o options) chooseBuilder(ctx context.Context) (builder, error) {
	all := []struct {
		builder
		works func() error
	}{
		{docker{o}, func() error { // a client without a daemon does not
			return errors.Join(quiet(ctx, "docker", "buildx", "ls"),
				quiet(ctx, "docker", "info", "--format", "{{.ServerVersion}}"))
		}},
		{podman{o}, func() error { return quiet(ctx, "podman", "info") }},
		{buildah{o}, func() error { return quiet(ctx, "buildah", "--version") }},
		{assembler{o}, func() error { return quiet(ctx, "go", "version") }},
	}
	for _, b := range all {
		if o.builder != "auto" && o.builder != b.name() {
			continue
		}
		err := b.works()
		if err == nil {
			return b.builder, nil
		}
		if o.builder != "auto" {
			return nil, fmt.Errorf("--builder %s: it does not work here: %w", o.builder, err)
		}
	}
	return nil, errors.New("there is neither docker, podman, buildah nor go")
}

// quiet runs a command whose output matters only if it fails.
func quiet(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// arguments are those of a Dockerfile.
func (o options) arguments() (args []string) {
	for _, pair := range []string{"VERSION=" + o.version, "REVISION=" + o.revision,
		"CREATED=" + o.created.Format(time.RFC3339)} {
		args = append(args, "--build-arg", pair)
	}
	return args
}

func (o options) epoch() string { return strconv.FormatInt(o.created.Unix(), 10) }

// fromArchive has a tool write an OCI archive, and reads it.
func (o options) fromArchive(make func(archive string) error) (v1.Image, error) {
	dir, err := os.MkdirTemp(o.work, "image-")
	if err != nil {
		return nil, err
	}
	archive := filepath.Join(dir, "image.tar")
	if err := make(archive); err != nil {
		return nil, err
	}
	return readArchive(archive, dir)
}

type docker struct{ options }

func (docker) name() string { return "docker" }

func (d docker) build(ctx context.Context, i imageSpec, p v1.Platform) (v1.Image, error) {
	return d.fromArchive(func(archive string) error {
		args := append([]string{"buildx", "build", "--file", filepath.Join(d.root, i.dockerfile), "--platform", p.String(),
			"--provenance=false",
			"--output", "type=oci,rewrite-timestamp=true,dest=" + archive}, d.arguments()...)
		cmd := exec.CommandContext(ctx, "docker", append(args, d.root)...)
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+d.epoch())
		return run(cmd)
	})
}

type podman struct{ options }

func (podman) name() string { return "podman" }

func (b podman) build(ctx context.Context, i imageSpec, p v1.Platform) (v1.Image, error) {
	return b.fromArchive(func(archive string) error {
		tag := fmt.Sprintf("localhost/%s:%s-%s", i.name, b.version, p.Architecture)
		args := append([]string{"build", "--file", filepath.Join(b.root, i.dockerfile), "--platform", p.String(),
			"--timestamp", b.epoch(), "--tag", tag}, b.arguments()...)
		if err := run(exec.CommandContext(ctx, "podman", append(args, b.root)...)); err != nil {
			return err
		}
		return run(exec.CommandContext(ctx, "podman", "save", "--format", "oci-archive", "--output", archive, tag))
	})
}
