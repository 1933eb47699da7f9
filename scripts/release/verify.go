package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// sumOf returns a file's SHA-256 in hexadecimal.
func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// sumAll returns the checksums of all files in a directory, except the list of checksums and its signature.
func sumAll(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for _, e := range entries {
		if e.Name() == sumsFile || e.Name() == signatureFile {
			continue
		}
		if sums[e.Name()], err = sumOf(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return sums, nil
}

// writeSums writes the list of checksums in the format of sha256sum.
func writeSums(dir string) error {
	sums, err := sumAll(dir)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, name := range sorted(sums) {
		fmt.Fprintf(&text, "%s  %s\n", sums[name], name)
	}
	return os.WriteFile(filepath.Join(dir, sumsFile), text.Bytes(), 0o644)
}

var sumLine = regexp.MustCompile(`^([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9._-]*)\n$`)

// readSums reads the list of checksums.
func readSums(dir string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(text)) {
		match := sumLine.FindStringSubmatch(line)
		if match == nil {
			return nil, notWellf("%s has a line %q, which is no checksum", sumsFile, line)
		}
		sums[match[2]] = match[1]
	}
	return sums, nil
}

// differences returns an error that names the differences between two lists of checksums.
func differences(want, got map[string]string, wanted, found string) error {
	all := maps.Clone(want)
	maps.Copy(all, got)
	var list []error
	for _, name := range sorted(all) {
		switch a, b := want[name], got[name]; {
		case a == "":
			list = append(list, fmt.Errorf("%s is in %s alone", name, found))
		case b == "":
			list = append(list, fmt.Errorf("%s is in %s alone", name, wanted))
		case a != b:
			list = append(list, fmt.Errorf("%s: SHA-256 %s in %s, %s in %s", name, a, wanted, b, found))
		}
	}
	if len(list) > 0 {
		return notWell{errors.Join(list...)}
	}
	return nil
}

// verify checks that the files, and with --registry the registry's artifacts, are those that were signed.
func (o options) verify(ctx context.Context) error {
	made, err := o.verifyFiles()
	if err != nil {
		return err
	}
	if o.registry != "" {
		if err := o.verifyRegistry(ctx, made); err != nil {
			return err
		}
		o.say("release: %s has %s of commit %s", o.registry, made.version, made.commit)
	}
	return nil
}

// verifyFiles checks the files in the directory, and returns their origin.
func (o options) verifyFiles() (made origin, err error) {
	v, err := o.verifier()
	if err != nil {
		return made, err
	}
	if v != nil {
		if err := verifySigned(v, o.dir); err != nil {
			return made, err
		}
	}
	want, err := readSums(o.dir)
	if err != nil {
		return made, err
	}
	got, err := sumAll(o.dir)
	if err != nil {
		return made, err
	}
	if err := differences(want, got, sumsFile, o.dir); err != nil {
		return made, err
	}
	if made, err = readProvenance(o.dir); err != nil {
		return made, err
	}
	if made.version != o.version {
		return made, notWellf("%s is release %s, not %s", o.dir, made.version, o.version)
	}
	known, err := readList(o.root)
	if err != nil {
		return made, err
	}
	if listed := known.find(o.version); listed != nil {
		if listed.Commit != made.commit {
			return made, notWellf("%s: %s is commit %s, and this one is %s", listFile, o.version, listed.Commit, made.commit)
		}
		if err := differences(listed.Files, got, listFile, o.dir); err != nil {
			return made, err
		}
	}
	judged := "signed by that key"
	if v == nil {
		judged = "whose signature was not looked at"
	}
	o.say("release: %d files of %s, commit %s, %s", len(got), made.version, made.commit, judged)
	return made, nil
}

// check builds the release again from a fresh clone, with the commit's own program, and compares all files but the
// signatures.
func (o options) check(ctx context.Context) error {
	made, err := o.verifyFiles()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "istio-pod-network-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	again := filepath.Join(work, "again")
	var some []string
	if made.tools != "" {
		some = []string{"--tool-platform", made.tools}
	}
	if err := o.buildAgain(ctx, releaseEntry{Version: made.version, Commit: made.commit, Go: made.toolchain}, again,
		some...); err != nil {
		return err
	}
	want, err := sumAll(o.dir)
	if err != nil {
		return err
	}
	got, err := sumAll(again)
	if err != nil {
		return err
	}
	if err := differences(want, got, o.dir, "the second build"); err != nil {
		return fmt.Errorf("built again, it is another release: %w", err)
	}
	o.say("release: %d files are the same byte for byte", len(got))
	return nil
}
