package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/istio-pod-network/controller/internal/files"
)

const (
	problemFile = "status" // in Store.Dir, beside the records
	maxProblem  = 4 << 10  // bytes
)

// SetProblem stores why the plugin could serve no ADD on this node at the last STATUS, or "" if it could. The agent
// cannot find out by itself, because its container has another root file system with other programs. A text that is
// already stored is not written again.
func (s Store) SetProblem(why string) error {
	before, err := s.Problem()
	if err == nil && before == why {
		return nil
	}
	path := filepath.Join(s.Dir, problemFile)
	if why == "" {
		err = os.Remove(path)
	} else if err = os.MkdirAll(s.Pods(), 0o700); err == nil {
		err = files.Replace(path, files.Temp(s.Pods(), tempPrefix), strings.NewReader(why), nil)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping the state in %q: %w", path, unpath(err))
	}
	return nil
}

// Problem returns what SetProblem stored last, or "" if nothing was stored.
func (s Store) Problem() (string, error) {
	path := filepath.Join(s.Dir, problemFile)
	why, err := files.ReadNoFollow(path, maxProblem)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the state in %q: %w", path, unpath(err))
	}
	return string(why), nil
}
