package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Names of the files that every release has.
const (
	sumsFile       = "SHA256SUMS"
	signatureFile  = "SHA256SUMS.sig"
	provenanceFile = "provenance.json"
	notesFile      = "RELEASE_NOTES.md"
	layoutSuffix   = "-oci.tar"
)

// linked is the variable that the linker sets to the version.
const linked = modulePath + "/internal/buildinfo.version"

// modulePath is the project's module path.
const modulePath = "github.com/istio-pod-network/controller"

// imagePlatforms are the platforms of the images.
const imagePlatforms = "linux/amd64,linux/arm64"

// tool is the operator's tool. It is built for more systems than the rest, because it runs on laptops.
const tool = "istio-pod-networkctl"

// target is a platform for which the tool is built.
type target struct{ system, architecture string }

var targets = []target{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"},
	{"windows", "amd64"}, {"windows", "arm64"}}

func (t target) String() string { return t.system + "/" + t.architecture }

// parseTargets returns the listed targets in their usual order, or all if the list is empty.
func parseTargets(list string) (some []target, err error) {
	if list == "" {
		return targets, nil
	}
	var known []string
	asked := strings.Split(list, ",")
	for _, t := range targets {
		known = append(known, t.String())
		if slices.Contains(asked, t.String()) {
			some = append(some, t)
		}
	}
	for _, name := range asked {
		if !slices.Contains(known, name) {
			return nil, misusef("--tool-platform: invalid value %q; valid: %s", name, strings.Join(known, ", "))
		}
	}
	return some, nil
}

// parts are the values of --only.
var parts = []string{"images", "chart", "tool"}

// build builds all files, or those of some parts. It first removes an earlier build from the directory.
func (o options) build(ctx context.Context) error {
	keys, err := o.signer()
	if err != nil {
		return err
	}
	s, err := o.readSource(ctx)
	if err != nil {
		return err
	}
	if err := o.clear(); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "istio-pod-network-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := builder{source: s, dir: o.dir, work: work, some: o.tools, say: o.say}
	if b.targets, err = parseTargets(o.tools); err != nil {
		return err
	}
	for _, step := range []struct {
		part, what string
		do         func(context.Context) error
	}{
		{"images", "images for " + imagePlatforms, b.images}, {"chart", "chart", b.packChart},
		{"tool", tool + " for " + fmt.Sprint(b.targets), b.tools}, {"papers", "notes and provenance", b.papers},
	} {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), step.part) {
			continue
		}
		start := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		o.say("release: %s: %.0f s", step.what, time.Since(start).Seconds())
	}
	if o.only != "" {
		o.say("release: of %s of commit %s, %s alone is in %s", s.version, s.commit, o.only, o.dir)
		return nil
	}
	if err := writeSums(o.dir); err != nil {
		return err
	}
	if keys == nil {
		o.say("release: not signed, for COSIGN_PRIVATE_KEY is not set")
	} else if err := sign(keys, o.dir); err != nil {
		return err
	}
	o.say("release: %s of commit %s is in %s", s.version, s.commit, o.dir)
	return nil
}

// clear creates the directory, or removes an earlier build of this version from it. It returns an error if the
// directory has any other file.
func (o options) clear() error {
	entries, err := os.ReadDir(o.dir)
	if errors.Is(err, os.ErrNotExist) {
		return os.MkdirAll(o.dir, 0o755)
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		ours := strings.Contains(e.Name(), "-"+o.version) || e.Name() == sumsFile || e.Name() == signatureFile ||
			e.Name() == provenanceFile || e.Name() == notesFile
		if !ours || !e.Type().IsRegular() {
			return misusef("--dir: %s has %q, which is of no release; valid: a directory of its own", o.dir, e.Name())
		}
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(o.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// builder builds the files of one release.
type builder struct {
	source
	dir, work string   // directory of the release's files, and a temporary one of this run
	targets   []target // for the tool
	some      string   // --tool-platform; empty if targets are all
	say       func(string, ...any)
}

// name returns the name of a file of the release.
func (b builder) name(part, rest string) string { return part + "-" + b.version + rest }

// images builds the images with scripts/images, and writes an SBOM for each.
func (b builder) images(ctx context.Context) error {
	out := filepath.Join(b.work, "images")
	cmd := exec.CommandContext(ctx, "go", "-C", filepath.Join(b.root, "scripts", "images"), "run", ".", "--builder",
		"none", "--platform", imagePlatforms, "--version", b.version, "--output", out, "--root", b.root)
	cmd.Env = b.environment()
	if err := run(cmd); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(out, "*.tar"))
	if err == nil && len(archives) == 0 {
		err = errors.New("there are none")
	}
	for _, archive := range archives {
		name := strings.TrimSuffix(filepath.Base(archive), ".tar")
		to := filepath.Join(b.dir, b.name(name, layoutSuffix))
		if err := moveFile(archive, to); err != nil {
			return err
		}
		l, err := openLayout(to, b.work)
		if err != nil {
			return err
		}
		contents, err := l.programs()
		if err != nil {
			return fmt.Errorf("reading %q: %w", to, err)
		}
		subject := artifact{name: name, file: filepath.Base(to), purpose: "CONTAINER", url: fmt.Sprintf(
			"pkg:oci/%s@%s?tag=%s", name, strings.ReplaceAll(l.digest.String(), ":", "%3A"), b.version)}
		if err := b.writeSBOM(subject, contents); err != nil {
			return err
		}
	}
	return err
}

// moveFile moves a file, also to another file system.
func moveFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o644)
	}
	if err == nil {
		err = os.Remove(from)
	}
	return err
}

// file is a file in an archive.
type file struct {
	name string
	data []byte
	mode int64
}

// tools builds the operator's tool for every target, in the archive format that is usual there.
func (b builder) tools(ctx context.Context) error {
	license, err := os.ReadFile(filepath.Join(b.root, "LICENSE"))
	if err != nil {
		return err
	}
	var contents []program
	for _, t := range b.targets {
		name, pack, suffix := tool, b.tarball, ".tar.gz"
		if t.system == "windows" {
			name, pack, suffix = tool+".exe", b.zip, ".zip"
		}
		binary := filepath.Join(b.work, name)
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w -X "+linked+"="+
			b.version, "-o", binary, "./agent/"+tool)
		cmd.Dir = b.root
		cmd.Env = b.environment("GOOS="+t.system, "GOARCH="+t.architecture)
		if err := run(cmd); err != nil {
			return fmt.Errorf("for %s: %w", t, err)
		}
		data, err := os.ReadFile(binary)
		if err != nil {
			return err
		}
		to := b.name(tool, "-"+t.system+"-"+t.architecture+suffix)
		if err := b.write(to, pack, []file{{name, data, 0o755}, {"LICENSE", license, 0o644}}); err != nil {
			return err
		}
		p, err := readProgram(to+"/"+name, t.String(), data)
		if err != nil {
			return err
		}
		contents = append(contents, p)
	}
	return b.writeSBOM(artifact{name: tool, purpose: "APPLICATION"}, contents)
}

// write packs files into an archive of the release.
func (b builder) write(name string, pack func(io.Writer, []file) error, files []file) error {
	var data bytes.Buffer
	if err := pack(&data, files); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, name), data.Bytes(), 0o644)
}

// tarball packs files into a .tar.gz, owned by root, with the time of the commit.
func (b builder) tarball(to io.Writer, files []file) error {
	compressed, err := gzip.NewWriterLevel(to, gzip.BestCompression)
	if err != nil {
		return err
	}
	w := tar.NewWriter(compressed)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: b.created,
			Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		if _, err := w.Write(f.data); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), compressed.Close())
}

// zip packs files into a .zip, with the time of the commit.
func (b builder) zip(to io.Writer, files []file) error {
	w := zip.NewWriter(to)
	for _, f := range files {
		header := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: b.created}
		header.SetMode(os.FileMode(f.mode))
		entry, err := w.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := entry.Write(f.data); err != nil {
			return err
		}
	}
	return w.Close()
}
