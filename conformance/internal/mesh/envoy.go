package mesh

import (
	"archive/tar"
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// envoyEnv is the environment variable that names another Envoy than the plain one, for example Istio's own. It is
// either the absolute path of a program for this machine, or a sidecar image with pilot-agent: REGISTRY/NAME:TAG,
// docker-archive:/PATH or oci-archive:/PATH, as buildah takes it.
const envoyEnv = "ENVOY"

// envoyPath is the path of Envoy in a sidecar image, without the first slash.
const envoyPath = "usr/local/bin/envoy"

// named returns the image that envoyEnv names, or "".
func named() string {
	if value := os.Getenv(envoyEnv); value != "" && value[0] != '/' {
		return value
	}
	return ""
}

// namedArchive returns the path of the archive of the image that envoyEnv names.
func namedArchive(bin string) string { return filepath.Join(bin, "named-proxy.tar") }

// envoy returns the path of Envoy if envoyEnv names no image.
func envoy(bin string) string { return cmp.Or(os.Getenv(envoyEnv), filepath.Join(bin, "envoy")) }

// machines maps GOARCH to the ELF machine.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// Check returns an error if envoyEnv has an invalid value. Call it before anything is built.
func Check() error {
	value := os.Getenv(envoyEnv)
	if value == "" {
		return nil
	}
	wrong := ""
	if named() != "" {
		wrong = wrongImage(value)
	} else {
		wrong = wrongProgram(value)
	}
	if wrong == "" {
		return nil
	}
	return fmt.Errorf("%s: invalid value %q: %s; valid: the absolute path of Envoy for this machine (%s), or an image of "+
		"a sidecar, as REGISTRY/NAME:TAG, docker-archive:/PATH or oci-archive:/PATH", envoyEnv, value, wrong, runtime.GOARCH)
}

func wrongImage(name string) string {
	transport, path, found := strings.Cut(name, ":")
	switch {
	case !strings.Contains(name, "/") || name[0] == '.':
		return "it is no absolute path, and no image of a registry"
	case found && strings.HasSuffix(transport, "-archive"):
		if _, err := os.Stat(path); err != nil {
			return errorText(err)
		}
	}
	return ""
}

func wrongProgram(path string) string {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return errorText(err)
	case !info.Mode().IsRegular():
		return "it is no file"
	case info.Mode()&0o111 == 0:
		return "it is not executable"
	}
	program, err := elf.Open(path)
	if err != nil {
		return "it is no ELF program: a script would not run in the image"
	}
	defer func() { _ = program.Close() }()
	if program.Machine != machines[runtime.GOARCH] {
		return fmt.Sprintf("it is a program for %v", program.Machine)
	}
	return ""
}

// errorText returns the text of a path error without the path, which the caller's message already has.
func errorText(err error) string {
	if of := (*os.PathError)(nil); errors.As(err, &of) {
		return of.Err.Error()
	}
	return err.Error()
}

// fetchNamed writes the archive of the image that envoyEnv names, under the name that Istio's charts use. It uses a
// temporary storage of buildah, so that the machine's images do not change.
func fetchNamed(bin string) error {
	store, err := os.MkdirTemp(bin, "named-proxy-")
	if err != nil {
		return err
	}
	buildah := func(args ...string) ([]byte, error) {
		args = append([]string{"--storage-driver", "overlay", "--root", filepath.Join(store, "root"), "--runroot",
			filepath.Join(store, "run")}, args...)
		cmd := exec.Command("buildah", args...)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %s: buildah: %w: %s", envoyEnv, named(), err, said.Bytes())
		}
		return bytes.TrimSpace(out), nil
	}
	id, err := buildah("pull", "--quiet", named())
	if err == nil {
		_, err = buildah("push", "--quiet", string(id), "docker-archive:"+namedArchive(bin)+":"+proxyImage)
	}
	if id != nil {
		_, undone := buildah("rmi", "--all", "--force")
		err = errors.Join(err, undone)
	}
	return errors.Join(err, os.RemoveAll(store))
}

// istios is the name of a filter that only Istio's own Envoy contains.
var istios = []byte("istio.stats")

// plain reports whether Envoy lacks Istio's filters.
func plain(bin string) (bool, error) {
	path, find := envoy(bin), contains
	if named() != "" {
		path, find = namedArchive(bin), imageContains
	}
	file, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("%s: %w", envoyEnv, err)
	}
	defer func() { _ = file.Close() }()
	found, err := find(file, istios)
	if err != nil {
		return false, fmt.Errorf("%s: %s: %w", envoyEnv, cmp.Or(named(), path), err)
	}
	return !found, nil
}

// contains reports whether the data contains a byte sequence.
func contains(from io.Reader, what []byte) (bool, error) {
	buffer, kept := make([]byte, 1<<20), 0
	for {
		n, err := io.ReadFull(from, buffer[kept:])
		if bytes.Contains(buffer[:kept+n], what) {
			return true, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		kept = copy(buffer, buffer[len(buffer)-len(what)+1:])
	}
}

// imageContains reports whether Envoy in an image archive contains a byte sequence. The archive is in the format of
// `docker save`: layers in a tar archive. It is an error if the image has no Envoy.
func imageContains(archive io.Reader, what []byte) (found bool, err error) {
	seen := false
	for files := tar.NewReader(archive); ; {
		file, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, err
		}
		if !strings.HasSuffix(file.Name, ".tar") {
			continue
		}
		for layer := tar.NewReader(files); ; {
			in, err := layer.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return false, err
			}
			if strings.TrimPrefix(in.Name, "./") == envoyPath {
				seen = true
				if found, err = contains(layer, what); err != nil {
					return false, err
				}
			}
		}
	}
	if !seen {
		return false, errors.New("the image has no /" + envoyPath)
	}
	return found, nil
}
