package install

import (
	"time"

	"golang.org/x/sys/unix"
)

// memo is what is known of files that have not changed since, so that a pass reads and runs no big file for nothing.
// The zero value knows nothing.
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

// identity is by what a file is known to be the same: a write changes its times, a rename its inode.
type identity struct {
	dev, ino     uint64
	size         int64
	mode         uint32
	mtime, ctime unix.Timespec
}

// unsettled is for how long after a change a file may change again and keep its times: they are as coarse as the
// kernel's clock, and those of some file systems are whole seconds.
const unsettled = 2 * time.Second

// askAgain is after which time the plugin is asked again although its file is the same: what keeps it from being run
// may be a mount.
const askAgain = 30 * time.Second

// identify returns the identity of a file, and whether a later change will change it.
func identify(path string) (id identity, settled bool) {
	var s unix.Stat_t
	if unix.Stat(path, &s) != nil {
		return id, false
	}
	id = identity{dev: s.Dev, ino: s.Ino, size: s.Size, mode: s.Mode, mtime: s.Mtim, ctime: s.Ctim}
	age := time.Since(time.Unix(s.Ctim.Unix()))
	return id, age > unsettled
}

// hash is the SHA-256 of a file.
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

// answersOf is what ask gets of the plugin at path about an entry. What failed is tried again each time.
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
