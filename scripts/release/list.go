package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// listFile is the path of the list of releases in the repository.
const listFile = "docs/releases.json"

// releaseList is the content of that file.
type releaseList struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Releases   []releaseEntry `json:"releases"` // the newest first
}

// releaseEntry is one release.
type releaseEntry struct {
	Version   string            `json:"version"`
	Commit    string            `json:"commit"`
	Date      string            `json:"date"`      // of the commit
	Go        string            `json:"go"`        // the version of Go that compiled it
	Artifacts map[string]string `json:"artifacts"` // images and chart in a registry: digest by name
	Files     map[string]string `json:"files"`     // SHA-256 by name
}

func readList(root string) (l releaseList, err error) {
	text, err := os.ReadFile(filepath.Join(root, listFile))
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	for _, r := range l.Releases {
		if err == nil && (!commitForm.MatchString(r.Commit) || !toolchainForm.MatchString(r.Go)) {
			err = fmt.Errorf("%s: release %s: commit %q, go %q; valid: 40 hexadecimal digits, and a release of Go", listFile,
				r.Version, r.Commit, r.Go)
		}
	}
	return l, err
}

// find returns the entry of a version, nil if there is none.
func (l releaseList) find(version string) *releaseEntry {
	for n := range l.Releases {
		if l.Releases[n].Version == version {
			return &l.Releases[n]
		}
	}
	return nil
}

// record adds a release to the list. An entry never changes.
func (o options) record(ctx context.Context) error {
	made, err := o.verifyFiles()
	if err != nil {
		return err
	}
	if made.tools != "" {
		return notWellf("%s is a trial: its %s is for %s alone", o.dir, tool, made.tools)
	}
	l, err := readList(o.root)
	if err != nil {
		return err
	}
	if l.find(made.version) != nil {
		o.say("release: %s has %s already", listFile, made.version)
		return nil
	}
	if _, err := o.git(ctx, "merge-base", "--is-ancestor", made.commit, "HEAD"); err != nil {
		return notWellf("commit %s is not in the history of what is checked out", made.commit)
	}
	date, err := o.git(ctx, "log", "-1", "--date=format-local:%Y-%m-%d", "--format=%cd", made.commit)
	if err != nil {
		return err
	}
	files, err := sumAll(o.dir)
	if err != nil {
		return err
	}
	l.Releases = append([]releaseEntry{{Version: made.version, Commit: made.commit, Date: date, Go: made.toolchain,
		Artifacts: made.artifacts, Files: files}}, l.Releases...)
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(o.root, listFile), append(text, '\n'), 0o644))
}
