package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// builder builds an image from a Dockerfile for one platform.
type builder interface {
	name() string
	build(ctx context.Context, i imageSpec, p v1.Platform) (v1.Image, error)
}

// tool is a builder that may be installed on this machine.
type tool interface {
	builder
	// try builds an image from a directory, and keeps nothing.
	try(ctx context.Context, dir string) error
}

var builderNames = []string{"auto", "docker", "podman", "buildah", "none"}

// chooseBuilder returns the builder that --builder names, or the first one that works. It tries each: an installed tool
// may be unable to run anything in a build, such as a client without its daemon, or crun on a machine with both
// versions of control groups.
func (o options) chooseBuilder(ctx context.Context) (builder, error) {
	tools := []tool{docker{o}, podman{o}, buildah{o}}
	if o.builder == "none" {
		return assembler{o}, nil
	}
	if o.builder != "auto" {
		b := tools[slices.IndexFunc(tools, func(b tool) bool { return b.name() == o.builder })]
		if _, err := exec.LookPath(b.name()); err != nil {
			return nil, fmt.Errorf("--builder %s: it is not installed; none needs nothing but Go", o.builder)
		}
		return b, nil
	}
	trial, err := o.makeTrial(ctx)
	if err != nil {
		return nil, fmt.Errorf("trying which builder works: %w", err)
	}
	for _, b := range tools {
		if _, err := exec.LookPath(b.name()); err != nil {
			continue
		}
		if err := b.try(ctx, trial); err == nil {
			return b, nil
		} else if ctx.Err() != nil {
			return nil, ctx.Err()
		} else {
			fmt.Fprintf(os.Stderr, "images: %s is here and does not work: %s\n", b.name(), lastLine(err))
		}
	}
	return assembler{o}, nil
}

// lastLine returns the last line, in which the tools say what failed.
func lastLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return lines[len(lines)-1]
}

// makeTrial makes the smallest directory whose build runs a program.
func (o options) makeTrial(ctx context.Context) (dir string, err error) {
	if dir, err = os.MkdirTemp(o.work, "trial-"); err != nil {
		return "", err
	}
	for name, text := range map[string]string{
		"main.go":    "package main\n\nfunc main() {}\n",
		"Dockerfile": "FROM scratch\nCOPY trial /trial\nRUN [\"/trial\"]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", "trial", "main.go")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	return dir, run(cmd)
}

// quiet runs a command. Its output is in the error if it fails.
func quiet(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// arguments returns the build arguments of the Dockerfiles.
func (o options) arguments() (args []string) {
	for _, pair := range []string{"VERSION=" + o.version, "REVISION=" + o.revision,
		"CREATED=" + o.created.Format(time.RFC3339)} {
		args = append(args, "--build-arg", pair)
	}
	return args
}

func (o options) epoch() string { return strconv.FormatInt(o.created.Unix(), 10) }

// fromArchive calls make to write an OCI archive, and reads the archive.
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

func (docker) try(ctx context.Context, dir string) error {
	return quiet(ctx, "docker", "buildx", "build", "--output", "type=cacheonly", dir)
}

type podman struct{ options }

func (podman) name() string { return "podman" }

func (podman) try(ctx context.Context, dir string) error {
	return quiet(ctx, "podman", "build", "--layers=false", "--squash-all", "--iidfile", filepath.Join(dir, "id"), dir)
}

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
