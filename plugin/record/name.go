package record

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/istio-pod-network/controller/internal/invalid"
)

const (
	suffix     = ".json"
	tempPrefix = ".tmp-" // a container ID cannot start with a dot, so no record has such a name
	maxName    = 255     // NAME_MAX of Linux file systems (limits.h)
	maxIfName  = 15      // IFNAMSIZ (linux/if.h) without the terminating zero
)

// What is valid, for error texts.
const (
	validID     = "letters, digits and _.-, the first a letter or digit"
	validIfName = "at most 15 bytes of UTF-8 without /, :, white space and control characters"
)

// fileName returns the name of an attachment's record. It returns an error for values that could lead out of the
// directory.
//
// Two attachments may share a name: container "a-b" with interface "c" and container "a" with interface "b-c" both have
// "a-b-c.json". That needs a dash in one of the values. IDs of runtimes have none, but cnitool's do. So readers compare
// the contents, and writers look at an existing file first if there is a dash.
func fileName(containerID, ifname string) (string, error) {
	if err := checkID(containerID); err != nil {
		return "", err
	}
	if err := checkIfName(ifname); err != nil {
		return "", err
	}
	name := containerID + "-" + ifname + suffix
	if len(name) > maxName {
		problem := fmt.Sprintf("its record would have a name of %d bytes, and file systems take %d", len(name), maxName)
		return "", invalid.Text("container ID", containerID, problem, validID)
	}
	return name, nil
}

// ambiguous reports whether another attachment could have the same file name.
func ambiguous(containerID, ifname string) bool {
	return strings.Contains(containerID, "-") || strings.Contains(ifname, "-")
}

// checkID validates a container ID as the CNI specification says (https://www.cni.dev/docs/spec/, Parameters): an
// alphanumeric character, then alphanumeric characters, underscore, dot and hyphen.
func checkID(id string) error {
	for i := range len(id) {
		c := id[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return invalid.Text("container ID", id, "", validID)
		}
	}
	if id == "" {
		return invalid.Text("container ID", id, "", validID)
	}
	return nil
}

// checkIfName validates an interface name as dev_valid_name does (net/core/dev.c), and returns an error for what JSON
// cannot represent.
func checkIfName(name string) error {
	bad := func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) || unicode.IsControl(r) }
	switch {
	case name == "", name == ".", name == "..":
		return invalid.Text("interface name", name, "not a name", validIfName)
	case len(name) > maxIfName, !utf8.ValidString(name), strings.ContainsFunc(name, bad):
		return invalid.Text("interface name", name, "", validIfName)
	}
	return nil
}

// IsFile reports whether a name in Store.Pods is a record's by its form. Other names are temporary files or not ours.
func IsFile(name string) bool {
	return strings.HasSuffix(name, suffix) && !strings.HasPrefix(name, ".")
}
