package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rebuild builds images and chart of a listed release again, and compares their checksums with the list.
func (o options) rebuild(ctx context.Context) error {
	l, err := readList(o.root)
	if err != nil {
		return err
	}
	listed := l.find(o.version)
	if listed == nil {
		return misusef("--version: %s has no %s", listFile, o.version)
	}
	if _, err := o.git(ctx, "cat-file", "-e", listed.Commit+"^{commit}"); err != nil {
		if shallow, err := o.git(ctx, "rev-parse", "--is-shallow-repository"); err != nil || shallow == "true" {
			return fmt.Errorf("%s is commit %s, which this shallow clone does not have; get it by: git fetch --unshallow",
				listed.Version, listed.Commit)
		}
		return notWellf("%s: %s is commit %s, which this clone does not have", listFile, listed.Version, listed.Commit)
	}
	if err := o.clear(); err != nil { // now, because what follows takes long
		return err
	}
	if err := o.buildAgain(ctx, *listed, o.dir, "--only", "images,chart"); err != nil {
		return err
	}
	want := maps.Clone(listed.Files)
	maps.DeleteFunc(want, func(name, _ string) bool {
		return strings.HasPrefix(name, tool+"-") || name == provenanceFile || name == notesFile
	})
	got, err := sumAll(o.dir)
	if err != nil {
		return err
	}
	if err := differences(want, got, listFile, "the second build"); err != nil {
		return fmt.Errorf("built again, it is another release: %w", err)
	}
	o.say("release: %d files of %s are in %s, the same byte for byte as %s has them", len(got), listed.Version, o.dir,
		listFile)
	return nil
}

// buildAgain builds a release from a fresh clone of its commit, with the commit's own program and the listed version of
// Go.
func (o options) buildAgain(ctx context.Context, e releaseEntry, dir string, more ...string) error {
	clone, err := os.MkdirTemp("", "istio-pod-network-clone-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(clone)
	for _, args := range [][]string{
		{"clone", "--quiet", "--no-hardlinks", "--no-checkout", o.root, clone},
		{"-C", clone, "checkout", "--quiet", "--detach", e.Commit},
	} {
		if err := run(exec.CommandContext(ctx, "git", args...)); err != nil {
			return fmt.Errorf("cloning commit %s of %s: %w", e.Commit, o.root, err)
		}
	}
	o.say("release: building %s again, with %s", e.Version, e.Go)
	cmd := exec.CommandContext(ctx, filepath.Join(clone, "scripts", "release.sh"), append([]string{"build", "--version",
		e.Version, "--dir", dir, "--unsigned"}, more...)...)
	cmd.Env = source{}.environment("GOTOOLCHAIN=" + e.Go)
	if err := run(cmd); err != nil {
		return fmt.Errorf("building it again: %w", err)
	}
	return nil
}
