package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	spdxjson "github.com/spdx/tools-golang/json"
)

// files are all files of a release.
var files = []string{
	"RELEASE_NOTES.md", "SHA256SUMS", "SHA256SUMS.sig",
	"istio-pod-network-agent-1.2.3-oci.tar", "istio-pod-network-agent-1.2.3.spdx.json",
	"istio-pod-network-plugin-1.2.3-oci.tar", "istio-pod-network-plugin-1.2.3.spdx.json",
	"istio-pod-networkctl-1.2.3-darwin-amd64.tar.gz", "istio-pod-networkctl-1.2.3-darwin-arm64.tar.gz",
	"istio-pod-networkctl-1.2.3-linux-amd64.tar.gz", "istio-pod-networkctl-1.2.3-linux-arm64.tar.gz",
	"istio-pod-networkctl-1.2.3-windows-amd64.zip", "istio-pod-networkctl-1.2.3-windows-arm64.zip",
	"istio-pod-networkctl-1.2.3.spdx.json", "provenance.json",
	"small-1.2.3-oci.tar", "small-1.2.3.tgz",
}

// A release is built, signed, verified, rebuilt from a clone, pushed and recorded. Every change to it is detected.
func TestRelease(t *testing.T) {
	root := fixture(t)
	dir := filepath.Join(root, "dist", "release", "1.2.3")
	private, public := key(t, "secret")
	env := map[string]string{privateKeyEnv: private, passwordEnv: "secret"}
	pub := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(pub, []byte(public), 0o644); err != nil {
		t.Fatal(err)
	}
	mustRelease(t, root, env, "build", "--version", "1.2.3")
	if got := releaseFiles(t, dir); !slices.Equal(got, files) {
		t.Errorf("the release has %q, want %q", got, files)
	}
	t.Run("parts", func(t *testing.T) { someParts(t, root, dir) })
	t.Run("contents", func(t *testing.T) { contents(t, root, dir) })
	t.Run("check", func(t *testing.T) {
		if said := mustRelease(t, root, nil, "check", "--key", pub); !strings.Contains(said, "the same byte for byte") {
			t.Error(said)
		}
	})
	t.Run("registry", func(t *testing.T) { inRegistry(t, root, "1.2.3", env, pub) })
	t.Run("changes", func(t *testing.T) { changes(t, root, dir, pub, files) })
	t.Run("record", func(t *testing.T) { record(t, root, dir, pub) })
}

// changes checks that a changed byte, file or key is detected.
func changes(t *testing.T, root, dir, pub string, files []string) {
	change := func(name string, edit func([]byte) []byte) (undo func()) {
		t.Helper()
		path := filepath.Join(dir, name)
		before, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, edit(slices.Clone(before)), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(path, before, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(data []byte) []byte {
		data[len(data)/2] ^= 1
		return data
	}
	for _, file := range files {
		undo := change(file, flip)
		refuses(t, 1, "", root, nil, "verify", "--key", pub)
		undo()
	}
	// somebody who changes a file and its checksum does not have the key
	undoNotes := change(notesFile, flip)
	undoSums := change(sumsFile, func([]byte) []byte { return nil })
	if err := writeSums(dir); err != nil {
		t.Fatal(err)
	}
	refuses(t, 1, "no signature of SHA256SUMS by this key", root, nil, "verify", "--key", pub)
	// without signatures, a second build shows the change
	refuses(t, 1, "RELEASE_NOTES.md: SHA-256", root, nil, "check", "--unsigned")
	undoNotes()
	undoSums()
	extra := filepath.Join(dir, "extra")
	if err := os.WriteFile(extra, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	refuses(t, 1, "extra is in ", root, nil, "verify", "--key", pub)
	if err := os.Remove(extra); err != nil {
		t.Fatal(err)
	}
	_, other := key(t, "")
	refuses(t, 1, "by this key", root, map[string]string{publicKeyEnv: other}, "verify")
	refuses(t, 2, "no key to judge signatures by", root, nil, "verify")
	signature := filepath.Join(dir, signatureFile)
	kept, err := os.ReadFile(signature)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(signature); err != nil {
		t.Fatal(err)
	}
	refuses(t, 1, "nobody has signed this", root, nil, "verify", "--key", pub)
	mustRelease(t, root, nil, "verify", "--unsigned")
	if err := os.WriteFile(signature, kept, 0o644); err != nil {
		t.Fatal(err)
	}
	mustRelease(t, root, nil, "verify", "--key", pub)
}

// inRegistry checks that what is pushed is what was built, is signed by the key, and is a chart for Helm.
func inRegistry(t *testing.T, root, version string, env map[string]string, pub string) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	to := strings.TrimPrefix(server.URL, "http://") + "/mesh"
	refuses(t, 1, "is not there", root, nil, "verify", "--key", pub, "--registry", to)
	mustRelease(t, root, env, "push", "--unsigned", "--registry", to)
	refuses(t, 1, "nobody has signed it", root, nil, "verify", "--key", pub, "--registry", to)
	refuses(t, 2, "no key to sign with", root, nil, "push", "--key", pub, "--registry", to)
	mustRelease(t, root, env, "push", "--registry", to)
	mustRelease(t, root, env, "push", "--registry", to) // a second push changes nothing
	mustRelease(t, root, nil, "verify", "--key", pub, "--registry", to)
	helmTakes(t, root, to, version)
	_, other := key(t, "")
	agent := "istio-pod-network-agent:" + version
	at := signatureTag(t, to+"/"+agent)
	image, err := remote.Image(at)
	if err != nil {
		t.Fatal(err)
	}
	if manifest, err := image.Manifest(); err != nil || len(manifest.Layers) != 1 {
		t.Errorf("%v, error %v: one signature, however often it is pushed", manifest, err)
	}
	// the files are right and signed, but the registry's signatures are by another key
	o, err := parse([]string{"--root", root, "verify", "--registry", to})
	if err != nil {
		t.Fatal(err)
	}
	o.env, o.out = func(name string) string { return map[string]string{publicKeyEnv: other}[name] }, io.Discard
	made, err := readProvenance(o.dir)
	if err != nil {
		t.Fatal(err)
	}
	err = o.verifyRegistry(t.Context(), made)
	if status(err) != 1 || !strings.Contains(err.Error(), "has not signed it") {
		t.Errorf("with another key: %v", err)
	}
	// another image with the same tag
	tag, err := name.NewTag(to + "/" + agent)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	refuses(t, 1, agent+" is sha256:", root, nil, "verify", "--key", pub, "--registry", to)
	server.Close()
	refuses(t, 3, "asking for ", root, nil, "verify", "--key", pub, "--registry", to)
}

// signatureTag returns the tag where cosign looks for an image's signature.
func signatureTag(t *testing.T, image string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(image)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(tag)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"amd64", "arm64"} {
		if _, err := remote.Image(tag, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: p})); err != nil {
			t.Error(err)
		}
	}
	return tag.Context().Tag("sha256-" + digest.Hex + ".sig")
}

// contents checks that the archives unpack, have the commit's time, and have nothing that depends on the run.
func contents(t *testing.T, root, dir string) {
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	const then = 1706933106 // of the commit
	listed := func(name string) (names []string) {
		t.Helper()
		compressed, err := gzip.NewReader(bytes.NewReader(read(name)))
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(compressed); ; {
			header, err := r.Next()
			if err == io.EOF {
				return names
			}
			if err != nil {
				t.Fatal(err)
			}
			if names = append(names, header.Name); header.ModTime.Unix() != then || header.Uid != 0 {
				t.Errorf("%s: %s is of %s and user %d", name, header.Name, header.ModTime, header.Uid)
			}
		}
	}
	for name, want := range map[string]string{
		"small-1.2.3.tgz": "small/Chart.yaml small/templates/a.yaml small/values.yaml",
		"istio-pod-networkctl-1.2.3-linux-arm64.tar.gz": "istio-pod-networkctl LICENSE",
	} {
		if got := strings.Join(listed(name), " "); got != want {
			t.Errorf("%s has %s, want %s", name, got, want)
		}
	}
	windows, err := zip.NewReader(bytes.NewReader(read("istio-pod-networkctl-1.2.3-windows-amd64.zip")),
		int64(len(read("istio-pod-networkctl-1.2.3-windows-amd64.zip"))))
	if err != nil || windows.File[0].Name != "istio-pod-networkctl.exe" || windows.File[0].Modified.Unix() != then {
		t.Errorf("%+v, error %v", windows, err)
	}
	plainPapers(t, root, dir, "1.2.3", files)
	made, err := readProvenance(dir)
	if err != nil || !slices.Equal(sorted(made.artifacts),
		[]string{"istio-pod-network-agent", "istio-pod-network-plugin", "small"}) {
		t.Errorf("%+v, error %v", made, err)
	}
	notes := string(read(notesFile))
	if !strings.Contains(notes, "A small thing.") || strings.Contains(notes, "later") ||
		strings.Contains(notes, "before") {
		t.Errorf("notes: %s", notes)
	}
}

// plainPapers checks that notes, provenance and SBOMs have the commit's time, and nothing that depends on the run.
func plainPapers(t *testing.T, root, dir, version string, files []string) {
	t.Helper()
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, name := range files {
		if !strings.HasSuffix(name, ".spdx.json") {
			continue
		}
		doc, err := spdxjson.Read(bytes.NewReader(read(name)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		packages := map[string]bool{}
		for _, p := range doc.Packages {
			packages[p.PackageName] = true
		}
		if doc.CreationInfo.Created != "2024-02-03T04:05:06Z" || !packages["stdlib"] ||
			!strings.HasSuffix(doc.DocumentNamespace, strings.TrimSuffix(doc.DocumentName, "-"+version)) ||
			random.Match(read(name)) {
			t.Errorf("%s: %s of %s with %v", name, doc.DocumentNamespace, doc.CreationInfo.Created, packages)
		}
	}
	if random.Match(read(provenanceFile)) || bytes.Contains(read(provenanceFile), []byte(root)) {
		t.Errorf("%s has something of this run: %s", provenanceFile, read(provenanceFile))
	}
}

// random matches a UUID, which would depend on the run.
var random = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// record checks that the release is added to the list, and that no other release can take its place.
func record(t *testing.T, root, dir, pub string) {
	mustRelease(t, root, nil, "record", "--key", pub)
	mustRelease(t, root, nil, "record", "--key", pub)
	l, err := readList(root)
	if err != nil || len(l.Releases) != 1 || l.find("1.2.3") == nil || len(l.find("1.2.3").Files) != len(files)-2 ||
		l.find("1.2.3").Date != "2024-02-03" || l.Kind != "ReleaseList" {
		t.Fatalf("%+v, error %v", l, err)
	}
	mustRelease(t, root, nil, "verify", "--key", pub)
	rebuild(t, root)
	l.find("1.2.3").Files[notesFile] = strings.Repeat("0", 64)
	text, err := json.Marshal(l)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, listFile), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, 1, "RELEASE_NOTES.md: SHA-256 0000", root, nil, "verify", "--key", pub)
	l.find("1.2.3").Commit = strings.Repeat("1", 40)
	if text, err = json.Marshal(l); err == nil {
		err = os.WriteFile(filepath.Join(root, listFile), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, 1, "1.2.3 is commit 1111", root, nil, "verify", "--key", pub)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != len(files) {
		t.Errorf("%d files, error %v", len(entries), err)
	}
}

// What cannot be a release is not built.
func TestRefused(t *testing.T) {
	root := fixture(t)
	refuses(t, 1, `version "1.2.3" and appVersion "1.2.3"; the release is "1.3.0"`, root, nil, "build", "--version",
		"1.3.0")
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "letter"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	refuses(t, 2, `has "letter", which is of no release`, root, nil, "build", "--dir", other)
	private, _ := key(t, "secret")
	refuses(t, 2, "COSIGN_PRIVATE_KEY: it cannot be read with the password of COSIGN_PASSWORD", root,
		map[string]string{privateKeyEnv: private, passwordEnv: "wrong"}, "build")
	refuses(t, 3, "no such file", root, nil, "verify", "--unsigned")
	changelog := filepath.Join(root, "CHANGELOG.md")
	if err := os.WriteFile(changelog, []byte("# Changelog\n\n## Unreleased\n\n- 1.2.3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	refuses(t, 1, "the tree is not a commit", root, nil, "build")
	commit(t, root)
	refuses(t, 1, `give it a section "## 1.2.3"`, root, nil, "build")
}

// The error of wrong usage says what is valid.
func TestUsage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", `command: invalid value ""; valid: build, verify, check, push, record, rebuild (see --help)`},
		{"publish", `command: invalid value "publish"`},
		{"build now", `unexpected argument "now"`},
		{"build --fast", "flag provided but not defined: -fast"},
		{"push", "push needs --registry"},
		{"build --registry r.example.com", "build has no --registry"},
		{"push --registry https://r.example.com", `--registry: invalid value "https://r.example.com"`},
		{"build --only tool,papers", `--only: invalid value "papers"; valid: images, chart, tool`},
		{"verify --only chart", "verify has no --only"},
		{"build --tool-platform linux/amd64,plan9/amd64", `--tool-platform: invalid value "plan9/amd64"; valid: ` +
			"linux/amd64, linux/arm64, darwin/amd64, darwin/arm64, windows/amd64, windows/arm64"},
		{"check --tool-platform linux/amd64", "check has no --tool-platform"},
		{"build --version 1.2", `--version: invalid value "1.2"; valid: a semantic version, such as 1.2.3`},
		{"build --version v1.2.3", `--version: invalid value "v1.2.3"`},
	} {
		_, err := parse(strings.Fields("--root ../.. " + c.args))
		if status(err) != 2 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, status %d, want %q", c.args, err, status(err), c.want)
		}
	}
	for line := range strings.Lines(help) {
		if len(line) > 101 {
			t.Errorf("too long: %s", line)
		}
	}
	var o options
	o.flags().VisitAll(func(f *flag.Flag) {
		if f.Name != "root" && !strings.Contains(help, "\n  --"+f.Name+" ") {
			t.Errorf("help does not name --%s", f.Name)
		}
	})
	for _, named := range regexp.MustCompile(`\n  --(\S+)`).FindAllStringSubmatch(help, -1) {
		if o.flags().Lookup(named[1]) == nil {
			t.Errorf("help names --%s, which is no flag", named[1])
		}
	}
	for name := range commands {
		if !strings.Contains(help, "\n  "+name+" ") {
			t.Errorf("help does not name %s", name)
		}
	}
}
