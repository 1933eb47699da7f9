package output

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/internal/invalid"
)

// CheckFile returns an error unless the file of a flag can be written. Commands call it before a long run. It does not
// change an existing file. Its error has an exit status.
func CheckFile(flag, name string) error {
	refused := func(problem, valid string) error { return outcome.Misuse(invalid.Text(flag, name, problem, valid)) }
	if dir, err := os.Stat(filepath.Dir(name)); err != nil || !dir.IsDir() {
		return refused("its directory is not there", "a file in one that is")
	}
	its, err := os.Stat(name)
	if err == nil && its.IsDir() {
		return refused("it is a directory", "a file")
	}
	if err == nil && !its.Mode().IsRegular() {
		return nil // opening a pipe would wait for its reader, and closing it would end that
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	made := err == nil
	if errors.Is(err, fs.ErrExist) {
		file, err = os.OpenFile(name, os.O_WRONLY, 0)
	}
	if err != nil {
		if path := new(fs.PathError); errors.As(err, &path) {
			err = path.Err // the error has the name already
		}
		return refused(err.Error(), "a file that can be written")
	}
	err = file.Close()
	if made {
		err = errors.Join(err, os.Remove(name))
	}
	return outcome.Misuse(err)
}
