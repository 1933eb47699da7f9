package exchange

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/istio-pod-network/controller/internal/files"
	"golang.org/x/sys/unix"
)

// Edit returns the changed contents of a file, and has no side effects. Its error says that the contents cannot be
// edited, for example because they are incomplete.
type Edit func(existing []byte) ([]byte, error)

// patience is how long to wait for somebody who writes into the file in place. It is longer in the tests, where that is
// a part of this process, which a busy machine may hold up as a whole.
var patience = 2 * time.Second

// Update edits a file that others write too. It never replaces contents that it has not read: it exchanges the edited
// file with the one that has the name at that moment, and if that is not the one that it has read, it edits that one
// too. It returns whether it changed the file.
func Update(path string, edit Edit) (bool, error) {
	old, fresh, err := readEdited(path, edit)
	if err != nil || bytes.Equal(fresh, old) {
		return false, err
	}
	s := swap{path: path}
	if err := s.write(old, fresh, path); err != nil {
		return false, err
	}
	return s.apply(edit)
}

// swap is an exchange of a file with a temporary one.
type swap struct {
	path, temp string
	old, fresh []byte // the contents that were read, and our edit of them
}

// write creates the temporary file, with the mode, owner and attributes of the file like. Its name tells Recover which
// contents it has.
func (s *swap) write(old, fresh []byte, like string) error {
	temp := filepath.Join(filepath.Dir(s.path), swapName+sum([]byte(filepath.Base(s.path)))+"."+sum(old)+"."+sum(fresh))
	if err := unix.Unlink(temp); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: temp, Err: err}
	}
	if err := files.Create(temp, bytes.NewReader(fresh), Like(like)); err != nil {
		return err
	}
	s.temp, s.old, s.fresh = temp, old, fresh
	return nil
}

// sum is a short hash for the names of temporary files.
func sum(data []byte) string {
	h := sha256.Sum256(data)
	return fmt.Sprintf("%x", h[:8])
}

func (s *swap) exchange() error {
	err := unix.Renameat2(unix.AT_FDCWD, s.temp, unix.AT_FDCWD, s.path, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("exchanging %q: %w", s.path, ErrNoExchange)
	case err != nil:
		return &os.LinkError{Op: "exchange", Old: s.temp, New: s.path, Err: err}
	}
	return nil
}

// apply exchanges the files and settles the exchange. It returns whether they were exchanged.
func (s *swap) apply(edit Edit) (bool, error) {
	if err := s.exchange(); err != nil {
		_ = unix.Unlink(s.temp)
		return false, err
	}
	return true, s.settle(edit)
}

// settle checks the file that the exchange has taken out. If it is not what was read, it is an update by somebody else.
// It is then edited and exchanged in turn, until an exchange takes out what was put in before.
func (s *swap) settle(edit Edit) error {
	for {
		closed := writersGone(s.temp)
		out, err := Read(s.temp)
		if err != nil {
			return err
		}
		if closed && bytes.Equal(out, s.old) {
			break
		}
		fresh, err := edit(out)
		if !closed || err != nil {
			return s.giveBack(out, err)
		}
		former := *s
		if err := s.write(former.fresh, fresh, former.temp); err != nil {
			return errors.Join(err, former.giveBack(out, nil))
		}
		if err := s.exchange(); err != nil {
			_ = unix.Unlink(s.temp)
			if errors.Is(err, unix.ENOENT) { // its owner has deleted it meanwhile
				_ = unix.Unlink(former.temp)
				return err
			}
			return errors.Join(err, former.giveBack(out, nil))
		}
		_ = unix.Unlink(former.temp)
	}
	if err := unix.Unlink(s.temp); err != nil {
		return &fs.PathError{Op: "remove", Path: s.temp, Err: err}
	}
	return files.SyncDir(filepath.Dir(s.path))
}

// giveBack gives a file that cannot be edited its name back. If the exchange takes out anything but what was put in
// before, that is a newer update, and is put back in turn.
func (s *swap) giveBack(out []byte, cause error) error {
	if cause == nil {
		cause = ErrBusy
	}
	for expected := s.fresh; ; {
		if err := s.exchange(); err != nil {
			return errors.Join(fmt.Errorf("editing %q: %w", s.path, cause), err)
		}
		now, err := Read(s.temp)
		if err != nil {
			return err
		}
		if bytes.Equal(now, expected) {
			break
		}
		expected, out = out, now
	}
	_ = unix.Unlink(s.temp)
	return errors.Join(fmt.Errorf("editing %q: %w", s.path, cause), files.SyncDir(filepath.Dir(s.path)))
}

// readEdited reads and edits a file that somebody may be writing in place: it waits for contents that can be edited.
func readEdited(path string, edit Edit) (old, fresh []byte, err error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if old, err = Read(path); err != nil {
			return nil, nil, err
		}
		if fresh, err = edit(old); err == nil || time.Now().After(deadline) {
			return old, fresh, err
		}
	}
}

// writersGone waits until nobody has the file open for writing: a process that opened it before the exchange still
// writes into it. The kernel grants a read lease only if nobody has the file open for writing (fcntl(2), F_SETLEASE).
// On a file system without leases, only the contents tell an incomplete file.
func writersGone(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer f.Close() // closing gives up the lease
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		if !errors.Is(err, unix.EAGAIN) {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}
