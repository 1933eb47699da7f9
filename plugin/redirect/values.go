package redirect

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/istio-pod-network/controller/internal/excerpt"
)

// ID is a user or group ID as seen inside the pod, 0 to 4294967294 (2^32-1 is the kernel's invalid ID).
type ID uint32

// ParseID parses a decimal user or group ID.
func ParseID(text string) (ID, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, errors.New("not a user or group ID")
	}
	return ID(n), nil
}

// Groups is a set of group IDs, or all groups.
type Groups struct {
	all  bool
	list []ID // sorted, unique
}

// AllGroups returns the set of all groups, written `*`.
func AllGroups() Groups { return Groups{all: true} }

// ParseGroups parses `*` or a comma-separated list of decimal group IDs. Spaces around an item are accepted. A name is
// an error: Istio looks names up in its own image. Empty text is the empty set.
func ParseGroups(text string) (Groups, error) {
	switch strings.TrimSpace(text) {
	case "":
		return Groups{}, nil
	case wildcard:
		return AllGroups(), nil
	}
	var list []ID
	for i, item := range strings.Split(text, ",") {
		id, err := ParseID(strings.TrimSpace(item))
		if err != nil {
			return Groups{}, fmt.Errorf("item %d, %s, is not a group ID", i+1, excerpt.Quote(item))
		}
		list = append(list, id)
	}
	sortBy(list, cmp.Compare[ID])
	return Groups{list: slices.Compact(list)}, nil
}

// All reports whether the set contains every group.
func (g Groups) All() bool { return g.all }

// List returns the groups in ascending order; nil if All.
func (g Groups) List() []ID { return g.list }

// has reports whether the set contains the group.
func (g Groups) has(id ID) bool { return g.all || slices.Contains(g.list, id) }

// among returns the groups for which keep is true. All stays All.
func (g Groups) among(keep func(ID) bool) Groups {
	return Groups{all: g.all, list: slices.DeleteFunc(slices.Clone(g.list), func(id ID) bool { return !keep(id) })}
}

// String returns the form that ParseGroups parses.
func (g Groups) String() string {
	return listText(g.all, g.list)
}

// Mode says how inbound traffic reaches the sidecar (annotation sidecar.istio.io/interceptionMode).
type Mode string

// The interception modes.
const (
	ModeRedirect Mode = "REDIRECT" // DNAT: the sidecar's socket does not show the client's address
	ModeTProxy   Mode = "TPROXY"   // inbound traffic keeps the client's address
	ModeNone     Mode = "NONE"     // nothing is redirected
)

// ParseMode parses an interception mode. As in Istio, the case matters.
func ParseMode(text string) (Mode, error) {
	switch mode := Mode(text); mode {
	case ModeRedirect, ModeTProxy, ModeNone:
		return mode, nil
	}
	return "", errors.New("unknown mode")
}

// wildcard means everything, in the lists that allow it.
const wildcard = "*"

// listText returns the form of a set that its parser parses.
func listText[T fmt.Stringer](all bool, list []T) string {
	if all {
		return wildcard
	}
	items := make([]string, len(list))
	for i, item := range list {
		items[i] = item.String()
	}
	return strings.Join(items, ",")
}
