package record

import (
	"errors"
	"fmt"
)

var errTooLarge = fmt.Errorf("larger than %d bytes", maxSize)

// IsVersion reports whether err says that a record has a version that this program does not know. The text names both
// versions. A verb that needs the record returns CNI error 11 (try again later): an upgrade in progress will end it.
func IsVersion(err error) bool {
	var v *versionError
	return errors.As(err, &v)
}

// versionError is a record with a version other than ours.
type versionError struct{ found int }

// Error names both versions.
func (e *versionError) Error() string {
	if e.found == 0 {
		return fmt.Sprintf("it has no record version, this program knows version %d", Version)
	}
	return fmt.Sprintf("it has record version %d, this program knows version %d", e.found, Version)
}

// IsMismatch reports whether err says that a file contains the record of another attachment than its name, or the
// caller, says: somebody renamed it, or two attachments have the same file name (see fileName).
func IsMismatch(err error) bool {
	var m *mismatchError
	return errors.As(err, &m)
}

// mismatchError names the attachment of the record in the file.
type mismatchError struct{ containerID, ifname string }

// Error names that attachment.
func (e *mismatchError) Error() string {
	return fmt.Sprintf("it holds the record of container %q interface %q", e.containerID, e.ifname)
}
