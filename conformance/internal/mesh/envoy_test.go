package mesh

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// file writes a file into a temporary directory of the test, and returns its path.
func file(t *testing.T, name string, mode os.FileMode, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(contents), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// foreign is the beginning of a program for another processor: an ELF header (elf(5)) for s390.
const foreign = "\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x02\x00\x16\x00\x00\x00\x01" +
	"\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x40\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00"

// ENVOY is checked before anything is built. The error says what is wrong and what is valid.
func TestCheck(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	there := file(t, "proxy.tar", 0o600, "")
	for value, want := range map[string]string{
		"": "", self: "", "registry.example/istio/proxyv2:1.31.0": "", "localhost/proxy": "", "docker-archive:" + there: "",
		"/no/such/envoy":       "no such file or directory",
		t.TempDir():            "it is no file",
		there:                  "it is not executable",
		"envoy":                "it is no absolute path, and no image of a registry",
		"./bin/envoy":          "it is no absolute path, and no image of a registry",
		"oci-archive:/no/such": "no such file or directory",
		file(t, "envoy", 0o700, "#!/bin/sh\nexec envoy\n"): "it is no ELF program: a script would not run in the image",
		file(t, "envoy", 0o700, foreign):                   "it is a program for EM_S390",
	} {
		t.Setenv(envoyEnv, value)
		err := Check()
		if want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		want = `ENVOY: invalid value "` + value + `": ` + want + "; valid: the absolute path of Envoy for this machine (" +
			runtime.GOARCH + "), or an image of a sidecar, as REGISTRY/NAME:TAG, docker-archive:/PATH or oci-archive:/PATH"
		if err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

// The values turn Istio's filters off if, and only if, Envoy lacks them, be it the plain one, another program or one in
// an image.
func TestValues(t *testing.T) {
	istios := strings.Repeat("machine code ", 100_000) + "istio.stats" // in the second chunk that contains reads
	for contents, plain := range map[string]bool{"machine code": true, istios: false} {
		off := func(bin string) {
			t.Helper()
			values, err := Values(bin)
			if err != nil {
				t.Fatal(err)
			}
			for _, setting := range []string{"PILOT_ENABLE_ALPN_FILTER: \"false\"", "PILOT_ENABLE_METADATA_EXCHANGE: \"false\"",
				"telemetry:\n  enabled: false"} {
				if strings.Contains(string(values), setting) != plain {
					t.Errorf("plain %t, and the values are\n%s", plain, values)
				}
			}
		}
		program := file(t, "envoy", 0o700, contents)
		t.Setenv(envoyEnv, "")
		off(filepath.Dir(program))
		t.Setenv(envoyEnv, program)
		off(t.TempDir())
		t.Setenv(envoyEnv, "registry.example/proxy:1")
		bin := t.TempDir()
		if err := cluster.Image(namedArchive(bin), proxyImage, "", []cluster.File{{Source: program, Path: envoyPath},
			{Source: file(t, "other", 0o600, "istio.stats"), Path: "usr/local/bin/other"}}, "/"+envoyPath); err != nil {
			t.Fatal(err)
		}
		off(bin)
	}
	bin := t.TempDir()
	if err := cluster.Image(namedArchive(bin), proxyImage, "", nil, "/bin/true"); err != nil {
		t.Fatal(err)
	}
	if _, err := Values(bin); err == nil || err.Error() !=
		"ENVOY: registry.example/proxy:1: the image has no /usr/local/bin/envoy" {
		t.Error(err)
	}
}

// A byte sequence is found at any position, also across the boundary of two chunks.
func TestContains(t *testing.T) {
	const piece = 1 << 20
	for _, at := range []int{0, 1, piece - 11, piece - 10, piece - 1, piece, 2*piece - 25, 2*piece - 5, 3 * piece} {
		text := strings.Repeat("x", at) + "istio.stats" + strings.Repeat("y", 7)
		for want, from := range map[bool]string{true: text, false: strings.Replace(text, ".", "-", 1)} {
			if found, err := contains(strings.NewReader(from), istios); err != nil || found != want {
				t.Errorf("at %d: %t, %v, want %t", at, found, err, want)
			}
		}
	}
}

// The named image is stored unchanged, under the name that Istio's charts use. Nothing else is left in the directory.
func TestFetchNamed(t *testing.T) {
	archive, bin := filepath.Join(t.TempDir(), "own.tar"), t.TempDir()
	if err := cluster.Image(archive, "registry.example/own:7", proxyUser, []cluster.File{
		{Source: file(t, "envoy", 0o700, "machine code"), Path: envoyPath}}, "/usr/local/bin/pilot-agent"); err != nil {
		t.Fatal(err)
	}
	t.Setenv(envoyEnv, "docker-archive:"+archive)
	if err := fetchNamed(bin); err != nil {
		t.Fatal(err)
	}
	if plain, err := plain(bin); err != nil || !plain {
		t.Errorf("plain %t, %v", plain, err)
	}
	data, err := os.ReadFile(namedArchive(bin))
	if err != nil || !strings.Contains(string(data), `"`+proxyImage+`"`) ||
		!strings.Contains(string(data), `"User":"`+proxyUser+`"`) {
		t.Errorf("%v: no image %s of %s", err, proxyImage, proxyUser)
	}
	if left, _ := filepath.Glob(filepath.Join(bin, "*")); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
	t.Setenv(envoyEnv, "docker-archive:"+file(t, "no.tar", 0o600, "no archive"))
	if err := fetchNamed(bin); err == nil || !strings.Contains(err.Error(), "ENVOY: docker-archive:") {
		t.Error(err)
	}
}
