package install

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/install/exchange"
)

// installBinary copies the plugin to BinDir, unless it is already there. It writes a new file and renames it, so a
// plugin that is running keeps its inode.
func (i *installer) installBinary() error {
	if i.Source == "" {
		return nil
	}
	want, err := i.memo.hash(i.Source)
	if err != nil {
		return err
	}
	if have, err := i.memo.hash(i.binary()); err == nil && have == want && executable(i.binary()) {
		return nil
	}
	if err := os.MkdirAll(i.BinDir, 0o755); err != nil {
		return err
	}
	unlock, err := exchange.Lock(i.BinDir)
	if err != nil {
		return err
	}
	defer unlock()
	source, err := os.Open(i.Source)
	if err != nil {
		return err
	}
	defer source.Close()
	cause := CauseBinaryMissing
	if executable(i.binary()) {
		cause = CauseBinaryChanged
	}
	if err := exchange.Write(i.binary(), source, exchange.Mode(0o755)); err != nil {
		return fmt.Errorf("writing %q: %w", i.binary(), err)
	}
	i.repaired(cause)
	return nil
}

// hash returns the SHA-256 of a regular file, in hexadecimal.
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

// Binary is the state of the plugin's installed binary.
type Binary struct {
	Path      string `json:"path"`
	Installed bool   `json:"installed"`        // it exists and is executable
	Current   bool   `json:"current"`          // it equals the source, or there is no source to compare with
	SHA256    string `json:"sha256,omitempty"` // of the installed binary
	Want      string `json:"want,omitempty"`   // of the source
}

// lookAtBinary compares the installed binary with the source.
func (i *installer) lookAtBinary() (Binary, error) {
	b := Binary{Path: filepath.Clean(i.binary()), Installed: executable(i.binary())}
	var err, failed error
	if b.SHA256, err = i.memo.hash(b.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed = err
	}
	if i.Source != "" {
		b.Want, err = i.memo.hash(i.Source)
		failed = errors.Join(failed, err)
	}
	b.Current = b.Installed && (i.Source == "" || b.Want != "" && b.SHA256 == b.Want)
	return b, failed
}
