package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"flag"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// given returns options as parse does.
func given(t *testing.T) options {
	t.Helper()
	o, err := parse([]string{"--builder=none", "--version=v1", "--output=" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	o.work = t.TempDir()
	return o
}

// An assembled image has exactly the right files, and the right labels, for every architecture.
func TestAssembled(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	want := map[string]string{
		"istio-pod-network-agent": "LICENSE istio-pod-network istio-pod-network-agent istio-pod-network-install " +
			"istio-pod-network-look",
		"istio-pod-network-plugin": "LICENSE istio-pod-network istio-pod-network-flows istio-pod-network-install " +
			"istio-pod-network-wait",
		"shop": "LICENSE shop",
	}
	for _, i := range (options{shop: true}).images() {
		for _, architecture := range architectures {
			o := given(t)
			p := v1.Platform{OS: "linux", Architecture: architecture}
			image, err := assembler{o}.build(context.Background(), i, p)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for r := tar.NewReader(mutate.Extract(image)); ; {
				header, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, header.Name)
				if header.Uid != 0 || header.Gid != 0 || !header.ModTime.Equal(o.created) {
					t.Errorf("%s: owner %d:%d, time %v", header.Name, header.Uid, header.Gid, header.ModTime)
				}
				data, err := io.ReadAll(r)
				if err != nil || header.Name == "LICENSE" {
					continue
				}
				program, err := elf.NewFile(bytes.NewReader(data))
				if err != nil || program.Machine != machines[architecture] || header.Mode != 0o755 {
					t.Errorf("%s for %s: %v, mode %o", header.Name, architecture, err, header.Mode)
				}
				if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 {
					t.Errorf("%s is linked to %v", header.Name, libraries)
				}
			}
			if got := strings.Join(names, " "); got != want[i.name] {
				t.Errorf("%s has %q, want %q", i.name, got, want[i.name])
			}
			config, err := image.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			if config.Architecture != architecture || config.Config.User != i.user ||
				config.Config.Entrypoint[0] != i.entrypoint ||
				config.Config.Labels["org.opencontainers.image.version"] != "v1" ||
				config.Config.Labels["org.opencontainers.image.licenses"] != "Apache-2.0" {
				t.Errorf("%+v", config)
			}
		}
	}
}

// The same commit gives the same archive, byte for byte, and it can be read back.
func TestReproducible(t *testing.T) {
	var archives [][]byte
	for range 2 {
		o := given(t)
		if err := o.run(context.Background()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(o.output, "istio-pod-network-plugin.tar")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, data)
		image, err := readArchive(path, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := o.compare(context.Background(), images[1], o.platforms[0], image); err != nil {
			t.Error(err)
		}
		if !bytes.Contains(data, []byte("docker.io/library/istio-pod-network-plugin:v1")) {
			t.Error("the archive does not name the image")
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two runs differ")
	}
}

// compare names a difference between two builds.
func TestCompare(t *testing.T) {
	o := given(t)
	image, err := assembler{o}.build(context.Background(), images[1], o.platforms[0])
	if err != nil {
		t.Fatal(err)
	}
	later := o
	later.version, later.created = "v2", o.created.Add(time.Hour)
	err = later.compare(context.Background(), images[1], o.platforms[0], image)
	for _, word := range []string{"file istio-pod-network:", "file LICENSE:", "label org.opencontainers.image.version:",
		`"v1", assembled "v2"`} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("no %q in %v", word, err)
		}
	}
	if strings.Contains(err.Error(), "user") || strings.Contains(err.Error(), "entrypoint") {
		t.Errorf("these do not differ: %v", err)
	}
}

func TestWrongUsage(t *testing.T) {
	for arg, words := range map[string][]string{
		"--builder=make":         {"--builder", `"make"`, "docker, podman, buildah, none"},
		"--platform=linux/riscv": {"--platform", `"linux/riscv"`, "linux/amd64, linux/arm64"},
		"--platform=":            {"--platform", "linux/amd64"},
		"--push=https://r/mesh":  {"--push", `"https://r/mesh"`, "without a scheme"},
		"--offline":              {"--offline", "--builder auto"},
		"now":                    {`unexpected argument "now"`},
	} {
		_, err := parse([]string{arg})
		for _, word := range words {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v, want %q in it", arg, err, word)
			}
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if _, err := parse(nil); err == nil || !strings.Contains(err.Error(), `SOURCE_DATE_EPOCH: invalid value "yesterday"`) {
		t.Error(err)
	}
}

// The help has all flags, and no others.
func TestHelp(t *testing.T) {
	var o options
	flags := o.flags(new(string))
	flags.VisitAll(func(f *flag.Flag) {
		if f.Name != "root" && !strings.Contains(help, "\n  --"+f.Name+" ") {
			t.Errorf("help does not name --%s", f.Name)
		}
	})
	for _, named := range regexp.MustCompile(`\n  --(\S+)`).FindAllStringSubmatch(help, -1) {
		if flags.Lookup(named[1]) == nil {
			t.Errorf("help names --%s, which is no flag", named[1])
		}
	}
	for line := range strings.Lines(help) {
		if len(line) > 101 {
			t.Errorf("too long: %s", line)
		}
	}
}

// What is pushed is what was built, for one platform and for several.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for _, platforms := range []string{"linux/amd64", "linux/amd64,linux/arm64"} {
		o := given(t)
		o.push = host + "/mesh"
		var err error
		if o.platforms, err = parsePlatforms(platforms); err != nil {
			t.Fatal(err)
		}
		if err := o.run(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, p := range o.platforms {
			reference, err := name.ParseReference(host + "/mesh/istio-pod-network-agent:v1")
			if err != nil {
				t.Fatal(err)
			}
			got, err := remote.Image(reference, remote.WithPlatform(p))
			if err != nil {
				t.Fatal(err)
			}
			if err := o.compare(context.Background(), images[0], p, got); err != nil {
				t.Errorf("%s of %s: %v", p, platforms, err)
			}
		}
	}
}
