package install

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// installBinary copies the plugin unless the same is there. A running one keeps its inode: the new one comes by a rename.
func (c Config) installBinary() error {
	if c.Source == "" {
		return nil
	}
	want, err := hash(c.Source)
	if err != nil {
		return err
	}
	if have, err := hash(c.binary()); err == nil && have == want && executable(c.binary()) {
		return nil
	}
	if err := os.MkdirAll(c.BinDir, 0o755); err != nil {
		return err
	}
	unlock, err := lock(c.BinDir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := clean(c.BinDir); err != nil {
		return err
	}
	source, err := os.Open(c.Source)
	if err != nil {
		return err
	}
	defer source.Close()
	cause := CauseBinaryMissing
	if executable(c.binary()) {
		cause = CauseBinaryChanged
	}
	if err := replace(c.binary(), source, mode(0o755)); err != nil {
		return fmt.Errorf("writing %q: %w", c.binary(), err)
	}
	c.made(cause)
	return nil
}

// hash is the SHA-256 of a regular file, in hexadecimal.
func hash(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%q is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 == 0o111
}

// Binary is the state of the plugin's binary.
type Binary struct {
	Path      string `json:"path"`
	Installed bool   `json:"installed"`        // it is there and can be executed
	Current   bool   `json:"current"`          // it has the contents of the source, or there is no source to compare with
	SHA256    string `json:"sha256,omitempty"` // of the installed one
	Want      string `json:"want,omitempty"`   // SHA-256 of the source
}

// lookAtBinary compares what is installed with what should be.
func (c Config) lookAtBinary() (Binary, error) {
	b := Binary{Path: filepath.Clean(c.binary()), Installed: executable(c.binary())}
	var err, failed error
	if b.SHA256, err = hash(b.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed = err
	}
	if c.Source != "" {
		b.Want, err = hash(c.Source)
		failed = errors.Join(failed, err)
	}
	b.Current = b.Installed && (c.Source == "" || b.Want != "" && b.SHA256 == b.Want)
	return b, failed
}
