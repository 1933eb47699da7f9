package install

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

type remedy struct {
	is   func(error) bool
	text string
}

func one(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
}

// remedies are in the order in which they are tried.
var remedies = []remedy{
	{IsNoPrimary, "install the primary CNI, or wait for it: `watch` chains into it when it comes"},
	{IsReadinessFile, "use --mode nad or --mode aux on this node"},
	{one(unix.ENOSPC, unix.EDQUOT), "free some space on that file system; nothing was changed"},
	{one(unix.EROFS), "mount that directory writable into this container, or choose another with --bin-dir or --conf-dir"},
	{one(fs.ErrPermission), "run as root on the node, with the SELinux type spc_t where SELinux is enforcing"},
	{one(unix.EBUSY), "mount the directory into this container, not the single file"},
	{one(errNoExchange), "use --drop-in always if the runtime reads drop-ins"},
	{one(errNotJSON, errNotObject, errNoType, errPlugins, errNoPlugins, errNoName), "repair the file; its owner may rewrite it by itself"},
	{one(fs.ErrNotExist, unix.ENOTDIR), "check that the directory exists on the node and is mounted at that path"},
	{one(errBusy), "wait until the other program has closed the file; `watch` tries again by itself"},
}
