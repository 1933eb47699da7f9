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

// Edit is a pure change of a file's contents. An error says that they are not fit to be changed, as half-written ones
// are.
type Edit func(existing []byte) ([]byte, error)

// patience is how long somebody who writes into a file in place is waited for.
const patience = 2 * time.Second

// Update changes somebody else's file. It never replaces a file that it has not read: it exchanges the edited one with
// what is under the name at that moment, and where that is something else than was read, edits that in turn. It says
// whether anything had to change.
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
	old, fresh []byte // what is expected to come out, what goes in
}

// write makes the temporary file, with mode, owner and attributes of the file like. Its name tells a later process what
// is under which name, should this one be killed.
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

// sum is a short hash for names of temporary files.
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

// apply puts the temporary file under the name, and tells whether it came there.
func (s *swap) apply(edit Edit) (bool, error) {
	if err := s.exchange(); err != nil {
		_ = unix.Unlink(s.temp)
		return false, err
	}
	return true, s.settle(edit)
}

// settle ends an exchange. As long as what came out is not what was expected, it is somebody's newer version: it goes
// back in, edited. It ends when it gets back what it put in, for then nobody was faster.
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
			if errors.Is(err, unix.ENOENT) { // its owner has deleted it meanwhile, so it is not wanted any more
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

// giveBack puts somebody's own file, that cannot be edited yet, under its name again. If it gets back something else
// than was put there, that is newer still and goes back in turn.
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

// readEdited reads a file that somebody may be writing in place: it waits for contents that can be edited.
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

// writersGone waits until nobody has the file open for writing: somebody who opened it under its name before the
// exchange writes into it still. A read lease can be had only on a file that nobody has open for writing (fcntl(2));
// where there are no leases, the contents have to tell.
func writersGone(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer f.Close() // which gives the lease back
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
