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

// Bounds of what is told of files: the operator's tool reads 4 MiB of an answer, and the agent's container has a limit
// of memory.
const (
	mostFiles   = 1000      // of a directory
	deepest     = 2         // directories below it
	longestText = 256 << 10 // of a file
	longestAll  = 2 << 20   // of all files together
)

// inspectedFiles is what lies in the directories that the plugin and the networks have.
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
	left int // how many bytes of texts may still be told
}

// list lists a directory and those below it. It opens configurations and records alone.
func (l *lister) list(dir, role string) inspect.Directory {
	d := inspect.Directory{Path: dir, Role: role, Files: []inspect.File{}}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		switch {
		case path == dir:
			return err
		case errors.Is(err, fs.ErrNotExist):
			return nil // it was there a moment ago
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

// texts are extensions of the files that are opened: those that runtimes read, and the records'. A kubeconfig that
// somebody keeps beside them has none of these.
var texts = []string{".conf", ".conflist", ".json"}

// look is what is told of a file; failed is why it could not be looked at.
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
