package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/blank"
	"github.com/istio-pod-network/controller/internal/files"
)

// Limits of inspect files: the operator's tool reads 4 MiB of an answer, and the agent's container has a memory limit.
const (
	mostFiles   = 1000      // files of a directory
	deepest     = 2         // levels of directories below it
	longestText = 256 << 10 // bytes of one file's text
	longestAll  = 2 << 20   // bytes of all texts together
)

// inspectedFiles lists the files in the directories of network configurations, plugins and records.
func (a *agent) inspectedFiles() inspect.Files {
	plugins, configurations := a.install.Directories()
	l := lister{left: longestAll}
	answer := inspect.Files{Directories: []inspect.Directory{}}
	for _, of := range []struct {
		role string
		dirs []string
	}{
		{inspect.RoleConfigurations, configurations},
		{inspect.RolePlugins, plugins},
		{inspect.RoleState, []string{a.store.Dir}},
	} {
		for _, dir := range of.dirs {
			answer.Directories = append(answer.Directories, l.list(dir, of.role))
		}
	}
	return answer
}

// lister lists directories.
type lister struct {
	left int // bytes of text that may still be returned
}

// list lists a directory and those below it, to a depth of deepest. It returns the texts of configurations and records
// alone.
func (l *lister) list(dir, role string) inspect.Directory {
	d := inspect.Directory{Path: dir, Role: role, Files: []inspect.File{}}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		switch {
		case path == dir:
			return err
		case errors.Is(err, fs.ErrNotExist):
			return nil // it was deleted meanwhile
		case len(d.Files) == mostFiles:
			d.LeftOut++
		default:
			d.Files = append(d.Files, l.look(path, name, role, err))
		}
		if e.IsDir() && strings.Count(name, string(filepath.Separator)) == deepest {
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		d.Problem = err.Error()
	}
	return d
}

// texts are the extensions of the files that are opened: those of network configurations and of records. A kubeconfig
// in the same directory has none of them.
var texts = []string{".conf", ".conflist", ".json"}

// look returns what it can read of one file. failed is the error of the directory walk for it.
func (l *lister) look(path, name, role string, failed error) inspect.File {
	f := inspect.File{Name: name}
	info, err := os.Lstat(path)
	if err := errors.Join(failed, err); err != nil {
		f.Problem = err.Error()
		return f
	}
	f.Mode, f.Size, f.Modified = info.Mode().String(), info.Size(), info.ModTime().UTC()
	if info.Mode()&fs.ModeSymlink != 0 {
		f.Target, _ = os.Readlink(path)
	}
	if role == inspect.RolePlugins || info.IsDir() || !slices.Contains(texts, filepath.Ext(name)) {
		return f
	}
	text, err := files.Read(path, int64(min(l.left, longestText)))
	if err == nil {
		f.Text, err = blank.File(text)
	}
	if err != nil {
		f.Problem = err.Error()
	}
	l.left -= len(f.Text)
	l.left = max(l.left, 0)
	return f
}
