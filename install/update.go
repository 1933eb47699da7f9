package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/istio-pod-network/controller/internal/files"
	"golang.org/x/sys/unix"
)

// edit is a pure change of a configuration's text.
type edit func(existing []byte) ([]byte, error)

// quiet is how long somebody who writes into a file in place is waited for.
const quiet = 2 * time.Second

// update changes somebody else's file. It never replaces a file that it has not read: it exchanges the edited one with
// what is under the name at that moment, and where that is something else than was read, edits that in turn. It says
// whether anything had to change. race, if not nil, is called between reading and exchanging; it is for tests.
func update(path string, change edit, race func()) (bool, error) {
	old, err := readQuiet(path, change)
	if err != nil {
		return false, err
	}
	fresh, err := change(old)
	if err != nil || bytes.Equal(fresh, old) {
		return false, err
	}
	s := swap{path: path}
	if err := s.write(old, fresh, path); err != nil {
		return false, err
	}
	if race != nil {
		race()
	}
	if err := s.exchange(); err != nil {
		_ = unix.Unlink(s.temp)
		return false, err
	}
	return true, s.settle(change)
}

// swap is an exchange of a file with a temporary one.
type swap struct {
	path, temp string
	old, fresh []byte // what is expected to come out, what goes in
}

// write makes the temporary file, with mode, owner and attributes of the file like. Its name tells a later process what is
// under which name, should this one be killed.
func (s *swap) write(old, fresh []byte, like string) error {
	temp := filepath.Join(filepath.Dir(s.path), swapName+sum([]byte(filepath.Base(s.path)))+"."+sum(old)+"."+sum(fresh))
	if err := unix.Unlink(temp); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: temp, Err: err}
	}
	if err := files.Create(temp, bytes.NewReader(fresh), attributesOf(like)); err != nil {
		return err
	}
	s.temp, s.old, s.fresh = temp, old, fresh
	return nil
}

func (s *swap) exchange() error {
	err := unix.Renameat2(unix.AT_FDCWD, s.temp, unix.AT_FDCWD, s.path, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("exchanging %q: %w", s.path, errNoExchange)
	case err != nil:
		return &os.LinkError{Op: "exchange", Old: s.temp, New: s.path, Err: err}
	}
	return nil
}

var errNoExchange = errors.New("the file system cannot exchange two names (renameat2 RENAME_EXCHANGE), " +
	"without which an update by the primary CNI could be lost")

// settle ends an exchange. As long as what came out is not what was expected, it is somebody's newer version: it goes
// back in, edited. It ends when it gets back what it put in, for then nobody was faster.
func (s *swap) settle(change edit) error {
	for {
		closed := writersGone(s.temp)
		out, err := readConf(s.temp)
		if err != nil {
			return err
		}
		if closed && bytes.Equal(out, s.old) {
			break
		}
		fresh, err := change(out)
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

// giveBack puts somebody's own file, that cannot be edited yet, under its name again. If it gets back something else than
// was put there, that is newer still and goes back in turn.
func (s *swap) giveBack(out []byte, cause error) error {
	if cause == nil {
		cause = errBusy
	}
	for inside := s.fresh; ; inside, out = out, inside {
		if err := s.exchange(); err != nil {
			return errors.Join(fmt.Errorf("editing %q: %w", s.path, cause), err)
		}
		now, err := readConf(s.temp)
		if err != nil {
			return err
		}
		if bytes.Equal(now, inside) {
			break
		}
		inside = now
	}
	_ = unix.Unlink(s.temp)
	return errors.Join(fmt.Errorf("editing %q: %w", s.path, cause), files.SyncDir(filepath.Dir(s.path)))
}

var errBusy = errors.New("somebody is writing it")

// readQuiet reads a file that somebody may be writing in place: it waits for a text that the edit understands.
func readQuiet(path string, change edit) ([]byte, error) {
	for deadline := time.Now().Add(quiet); ; time.Sleep(2 * time.Millisecond) {
		data, err := readConf(path)
		if err != nil {
			return nil, err
		}
		if _, err = change(data); err == nil || !errors.Is(err, errNotJSON) || time.Now().After(deadline) {
			return data, err
		}
	}
}

// writersGone waits until nobody has the file open for writing: somebody who opened it under its name before the exchange
// writes into it still. A read lease can be had only on a file that nobody has open for writing (fcntl(2)); where there
// are no leases, the contents have to tell.
func writersGone(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer f.Close() // which gives the lease back
	for deadline := time.Now().Add(quiet); ; time.Sleep(time.Millisecond) {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		if !errors.Is(err, unix.EAGAIN) {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}
