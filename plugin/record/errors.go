package record

import (
	"errors"
	"fmt"
)

var errTooLarge = fmt.Errorf("larger than %d bytes", maxSize)

// IsVersion reports whether err says that a record has a version this program does not read. Both versions are in the
// text. A verb that needs the record answers with CNI code 11: an upgrade that is under way will settle it.
func IsVersion(err error) bool {
	var v *versionError
	return errors.As(err, &v)
}

// versionError is a record of another version than ours.
type versionError struct{ found int }

// Error names both versions.
func (e *versionError) Error() string {
	if e.found == 0 {
		return fmt.Sprintf("it has no record version, this program knows version %d", Version)
	}
	return fmt.Sprintf("it has record version %d, this program knows version %d", e.found, Version)
}

// IsMismatch reports whether err says that a file holds the record of another attachment than its name or the caller
// says: somebody renamed it, or two attachments share a name (see fileName).
func IsMismatch(err error) bool {
	var m *mismatchError
	return errors.As(err, &m)
}

// mismatchError carries whose record was found.
type mismatchError struct{ containerID, ifname string }

// Error names the attachment the contents belong to.
func (e *mismatchError) Error() string {
	return fmt.Sprintf("it holds the record of container %q interface %q", e.containerID, e.ifname)
}
