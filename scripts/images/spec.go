package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// imageSpec describes an image. The Dockerfile describes the same image, and --check compares both.
type imageSpec struct {
	name, dockerfile string
	description      string
	programs         []string // packages, sorted by the name of their program
	alone            bool     // its one program uses only the standard library, and is built as a module of its own
	entrypoint       string
	user             string
}

// Packages of the project's programs.
const (
	plugin    = "./plugin/istio-pod-network"
	agent     = "./agent/istio-pod-network-agent"
	installer = "./install/istio-pod-network-install"
	wait      = "./plugin/istio-pod-network-wait"
	flows     = "./plugin/istio-pod-network-flows"
	look      = "./plugin/istio-pod-network-look"
)

var images = []imageSpec{
	{
		name: "istio-pod-network-agent", dockerfile: "Dockerfile.agent", programs: []string{plugin, agent, installer, look},
		description: "The node agent of istio-pod-network-controller, with the CNI plugin that it installs",
		entrypoint:  "/istio-pod-network-agent", user: "0:0",
	},
	{
		name: "istio-pod-network-plugin", dockerfile: "Dockerfile.plugin", programs: []string{plugin, flows, installer, wait},
		description: "The CNI plugin istio-pod-network, its installer, the init wait of mesh pods, and a program that " +
			"proves an installation",
		entrypoint: "/istio-pod-network-wait", user: "65532:65532",
	},
}

// shop is an image to verify a mesh with. It is not part of the product.
var shop = imageSpec{
	name: "shop", dockerfile: "conformance/shop/Dockerfile", programs: []string{"./conformance/shop"}, alone: true,
	description: "A shop of four services, to verify a mesh with",
	entrypoint:  "/shop", user: "65532:65532",
}

// images returns the images to build.
func (o options) images() []imageSpec {
	if o.shop {
		return append(slices.Clone(images), shop)
	}
	return images
}

// labels returns the image's labels (https://github.com/opencontainers/image-spec/blob/main/annotations.md).
func (o options) labels(i imageSpec) map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title":       i.name,
		prefix + "description": i.description,
		prefix + "source":      "https://github.com/istio-pod-network/controller",
		prefix + "licenses":    "Apache-2.0",
		prefix + "version":     o.version,
		prefix + "revision":    o.revision,
		prefix + "created":     o.created.Format(time.RFC3339),
	}
}

// assembler builds images without a container tool.
type assembler struct{ options }

func (assembler) name() string { return "none" }

func (a assembler) build(ctx context.Context, i imageSpec, p v1.Platform) (v1.Image, error) {
	dir, err := os.MkdirTemp(a.work, "programs-")
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	files := tar.NewWriter(&layer)
	if err := a.add(files, "LICENSE", filepath.Join(a.root, "LICENSE"), 0o644); err != nil {
		return nil, err
	}
	compile := a.compile
	if i.alone {
		compile = a.compileAlone
	}
	if err := compile(ctx, i.programs, p, dir); err != nil {
		return nil, err
	}
	for _, program := range i.programs {
		name := path.Base(program)
		if err := a.add(files, name, filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	if err := files.Close(); err != nil {
		return nil, err
	}
	return a.image(i, p, layer.Bytes())
}

// linked is the variable that the linker sets to the version.
const linked = "github.com/istio-pod-network/controller/internal/buildinfo.version"

// compile builds programs into dir with the flags of make build and the Dockerfiles.
func (a assembler) compile(ctx context.Context, packages []string, p v1.Platform, dir string) error {
	return goBuild(ctx, a.root, p, append([]string{"-ldflags", "-s -w -X " + linked + "=" + a.version, "-o", dir + "/"},
		packages...)...)
}

// compileAlone builds the one program of a directory into dir from its sources alone, as its Dockerfile does.
func (a assembler) compileAlone(ctx context.Context, packages []string, p v1.Platform, dir string) error {
	module, err := os.MkdirTemp(a.work, "module-")
	if err != nil {
		return err
	}
	sources, err := filepath.Glob(filepath.Join(a.root, packages[0], "*.go"))
	if err != nil {
		return err
	}
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		data, err := os.ReadFile(source)
		if err == nil {
			err = os.WriteFile(filepath.Join(module, filepath.Base(source)), data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	name := path.Base(packages[0])
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte("module "+name+"\ngo 1.26\n"), 0o644); err != nil {
		return err
	}
	return goBuild(ctx, module, p, "-ldflags", "-s -w", "-o", filepath.Join(dir, name), ".")
}

// goBuild runs go build for a platform in the directory of a module.
func goBuild(ctx context.Context, module string, p v1.Platform, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-buildvcs=false", "-trimpath"}, args...)...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Architecture)
	return run(cmd)
}

// add adds a file to the layer, owned by root, with the time of the commit.
func (a assembler) add(files *tar.Writer, name, path string, mode int64) error {
	data, err := os.ReadFile(path)
	if err == nil {
		err = files.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), ModTime: a.created,
			Typeflag: tar.TypeReg, Format: tar.FormatPAX})
	}
	if err == nil {
		_, err = files.Write(data)
	}
	return err
}

// image returns the image with that layer.
func (a assembler) image(i imageSpec, p v1.Platform, files []byte) (v1.Image, error) {
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)),
			nil
	},
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{Layer: layer, MediaType: types.OCILayer, History: v1.History{
		Created: v1.Time{Time: a.created}, CreatedBy: fmt.Sprintf("images --builder none: %s", i.dockerfile),
	}})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = p.OS, p.Architecture, v1.Time{Time: a.created}
	config.Config = v1.Config{Entrypoint: []string{i.entrypoint}, User: i.user, Labels: a.labels(i), WorkingDir: "/"}
	return mutate.ConfigFile(image, config)
}

// run runs a command. Its output goes to standard error.
func run(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	return nil
}
