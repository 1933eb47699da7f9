package install

import (
	"time"

	"golang.org/x/sys/unix"
)

// memo keeps what is known of unchanged files, so that a pass does not read and run large files without need. The zero
// value is empty.
type memo struct {
	hashes map[string]hashed
	asked  asked
}

type hashed struct {
	identity
	sum string
}

type asked struct {
	identity
	entry string
	said  answers
	at    time.Time
}

// identity identifies an unchanged file: a write changes its times, a rename its inode.
type identity struct {
	dev, ino     uint64
	size         int64
	mode         uint32
	mtime, ctime unix.Timespec
}

// unsettled is how long after a change another change may leave a file's times the same. They have the resolution of
// the kernel's clock, and on some file systems that of whole seconds.
const unsettled = 2 * time.Second

// askAgain is how often the plugin is asked again although its file is unchanged: a mount option may keep it from
// running.
const askAgain = 30 * time.Second

// identify returns the identity of a file, and whether any later change will change the identity.
func identify(path string) (id identity, settled bool) {
	var s unix.Stat_t
	if unix.Stat(path, &s) != nil {
		return id, false
	}
	id = identity{dev: s.Dev, ino: s.Ino, size: s.Size, mode: s.Mode, mtime: s.Mtim, ctime: s.Ctim}
	age := time.Since(time.Unix(s.Ctim.Unix()))
	return id, age > unsettled
}

// hash returns the SHA-256 of a file.
func (m *memo) hash(path string) (string, error) {
	id, settled := identify(path)
	if known, ok := m.hashes[path]; ok && known.identity == id {
		return known.sum, nil
	}
	delete(m.hashes, path)
	sum, err := hash(path)
	if after, _ := identify(path); err == nil && settled && after == id {
		if m.hashes == nil {
			m.hashes = map[string]hashed{}
		}
		m.hashes[path] = hashed{id, sum}
	}
	return sum, err
}

// answersOf returns the answers of the plugin at path about an entry, from ask or from an earlier call. A failure is
// not kept.
func (m *memo) answersOf(path, entry string, ask func() (answers, error)) (answers, error) {
	id, _ := identify(path)
	if m.asked.identity == id && m.asked.entry == entry && time.Since(m.asked.at) < askAgain {
		return m.asked.said, nil
	}
	m.asked = asked{}
	said, err := ask()
	if err == nil && id != (identity{}) {
		m.asked = asked{id, entry, said, time.Now()}
	}
	return said, err
}
