package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

type buildah struct{ options }

func (buildah) name() string { return "buildah" }

// store returns the directory of images and layers between runs. It is neither the machine's own store nor in the
// build's context. Offline builds have a store of their own, because their base has the name of a registry's image.
func (b buildah) store() (string, error) {
	name := "buildah-online"
	if b.offline {
		name = "buildah"
	}
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "istio-pod-network", name), err
}

func (b buildah) try(ctx context.Context, dir string) error {
	store, err := b.store()
	if err != nil {
		return err
	}
	id := filepath.Join(dir, "id")
	if err := quiet(ctx, "buildah", inStore(store, "build-using-dockerfile", "--layers=false", "--iidfile", id,
		dir)...); err != nil {
		return err
	}
	image, err := os.ReadFile(id)
	if err != nil {
		return err
	}
	return quiet(ctx, "buildah", inStore(store, "rmi", string(image))...)
}

// command returns a buildah command with that store.
func (buildah) command(ctx context.Context, store string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "buildah", inStore(store, args...)...)
}

// inStore returns the arguments of a command with that store.
func inStore(store string, args ...string) []string {
	return append([]string{"--storage-driver", "overlay", "--root", filepath.Join(store, "root"), "--runroot",
		filepath.Join(store, "run")}, args...)
}

func (b buildah) build(ctx context.Context, i imageSpec, p v1.Platform) (v1.Image, error) {
	store, err := b.store()
	if err != nil {
		return nil, err
	}
	args := append([]string{"build-using-dockerfile", "--file", filepath.Join(b.root, i.dockerfile), "--timestamp",
		b.epoch(), "--layers=false"}, b.arguments()...)
	// With --platform, buildah would look for a base of that platform, although the programs are cross-compiled.
	args = append(args, "--build-arg", "TARGETOS="+p.OS, "--build-arg", "TARGETARCH="+p.Architecture, "--build-arg",
		"BUILDPLATFORM=linux/"+runtime.GOARCH,
		"--os", p.OS, "--arch", p.Architecture)
	if b.offline {
		more, err := b.base(ctx, store)
		if err != nil {
			return nil, fmt.Errorf("making a base image of this machine's Go: %w", err)
		}
		args = append(args, more...)
	}
	return b.fromArchive(func(archive string) error {
		tag := fmt.Sprintf("localhost/%s:%s-%s", i.name, b.version, p.Architecture)
		if err := run(b.command(ctx, store, append(args, "--tag", tag, b.root)...)); err != nil {
			return err
		}
		return run(b.command(ctx, store, "push", "--quiet", tag, "oci-archive:"+archive))
	})
}

// golang returns the name of the base image in the Dockerfiles.
func (o options) golang() (string, error) {
	text, err := os.ReadFile(filepath.Join(o.root, images[0].dockerfile))
	if err != nil {
		return "", err
	}
	version := regexp.MustCompile(`(?m)^ARG GO_VERSION=(\S+)$`).FindSubmatch(text)
	if version == nil {
		return "", fmt.Errorf("%s has no line ARG GO_VERSION=", images[0].dockerfile)
	}
	return "docker.io/library/golang:" + string(version[1]), nil
}

// goCache is the directory of the build cache in that image.
const goCache = "/var/cache/go-build"

// base makes an image of that name with a shell and this machine's Go. It returns the flags for builds with that image,
// with this machine's modules, and without a network.
func (b buildah) base(ctx context.Context, store string) (flags []string, err error) {
	golang, err := b.golang()
	if err != nil {
		return nil, err
	}
	goroot, modules, cache, version, err := goEnv(ctx)
	if err != nil {
		return nil, err
	}
	download := exec.CommandContext(ctx, "go", "mod", "download")
	download.Dir = b.root
	if err := run(download); err != nil {
		return nil, err
	}
	runc, err := exec.LookPath("runc") // crun fails on a machine with both versions of control groups
	if err != nil {
		return nil, err
	}
	flags = []string{"--pull-never", "--network", "none", "--isolation", "oci", "--runtime", runc,
		"--volume", filepath.Join(modules, "cache", "download") + ":/goproxy:ro", "--volume",
		cache + ":" + goCache + ":rw"}
	inspect := b.command(ctx, store, "inspect", "--type", "image", "--format", "{{index .OCIv1.Config.Labels \"go\"}}",
		golang)
	if out, err := inspect.Output(); err == nil && strings.TrimSpace(string(out)) == madeOf(version) {
		return flags, nil
	}
	fmt.Fprintf(os.Stderr, "images: making %s of %s, once\n", golang, version)
	return flags, b.makeBase(ctx, store, golang, goroot, version)
}

// madeOf returns the label of the base image. A base with another label is made again.
func madeOf(version string) string { return version + " " + goCache }

func goEnv(ctx context.Context) (goroot, modules, cache, version string, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE", "GOCACHE", "GOVERSION").Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err == nil && len(lines) != 4 {
		err = fmt.Errorf("go env says %q", out)
	}
	if err != nil {
		return "", "", "", "", err
	}
	return lines[0], lines[1], lines[2], lines[3], nil
}

// makeBase commits the base image. Beside Go it has only what the Dockerfiles need: a shell.
func (b buildah) makeBase(ctx context.Context, store, golang, goroot, version string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	var name bytes.Buffer
	from := b.command(ctx, store, "from", "scratch")
	from.Stdout, from.Stderr = &name, os.Stderr
	if err := from.Run(); err != nil {
		return err
	}
	container := strings.TrimSpace(name.String())
	defer func() { _ = b.command(context.WithoutCancel(ctx), store, "rm", container).Run() }()
	empty, err := os.MkdirTemp(b.work, "tmp-")
	if err != nil {
		return err
	}
	for _, step := range [][]string{
		{"copy", "--quiet", container, busybox, "/bin/sh"},
		{"copy", "--quiet", "--chmod", "1777", container, empty, "/tmp"},
		{"copy", "--quiet", container, goroot, "/usr/local/go"},
		{"config", "--env", "PATH=/usr/local/go/bin:/bin", "--env", "HOME=/root", "--env", "GOPATH=/go", "--env",
			"GOTOOLCHAIN=local", "--env", "GOCACHE=" + goCache, "--env", "GOPROXY=file:///goproxy", "--label",
			"go=" + madeOf(version), container},
		{"commit", "--quiet", container, golang},
	} {
		if err := run(b.command(ctx, store, step...)); err != nil {
			return err
		}
	}
	return nil
}
