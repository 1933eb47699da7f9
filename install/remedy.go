package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/install/conflist"
	"github.com/istio-pod-network/controller/install/exchange"
	"golang.org/x/sys/unix"
)

// Errors that a caller may want to distinguish.
var (
	errNoPrimary = errors.New("no primary network configuration yet")
	errDangling  = errors.New("the first configuration is a link whose target is not there")
	errReadiness = errors.New("it is a readiness file of its owner, never edited by us")
)

// IsNoPrimary reports whether err says that there is no network yet to chain into. A Keeper waits for one.
func IsNoPrimary(err error) bool { return errors.Is(err, errNoPrimary) }

// IsReadinessFile reports whether err says that the network's file must not be edited. ModeNAD or ModeAux is right for
// such a node (OpenShift, or another one with Multus).
func IsReadinessFile(err error) bool { return errors.Is(err, errReadiness) }

// Explain returns the text of an error and, on a second line, its remedy if there is one.
func Explain(err error) string {
	if remedy := Remedy(err); remedy != "" {
		return err.Error() + "\n  remedy: " + remedy
	}
	return err.Error()
}

// Remedy returns what an operator can do about an error, or "".
func Remedy(err error) string {
	if owner, path := strangerOf(err); path != "" {
		return fmt.Sprintf("%s belongs to user %d: give the container CAP_DAC_OVERRIDE, CAP_CHOWN and CAP_FOWNER, as the "+
			"chart does, or let it belong to root", path, owner)
	}
	for _, r := range remedies {
		if r.is(err) {
			return r.text
		}
	}
	return ""
}

// strangerOf returns, for a permission error of root, the path and the owner of a file or directory of another user:
// root lacks a capability to access it.
func strangerOf(err error) (owner uint32, path string) {
	var file *fs.PathError
	var link *os.LinkError
	switch {
	case !errors.Is(err, fs.ErrPermission) || errors.Is(err, errNotRun) || os.Geteuid() != 0:
		return 0, ""
	case errors.As(err, &file):
		path = file.Path
	case errors.As(err, &link):
		path = link.New
	default:
		return 0, ""
	}
	for _, path := range []string{path, filepath.Dir(path)} {
		var s unix.Stat_t
		if unix.Stat(path, &s) == nil && s.Uid != 0 {
			return s.Uid, path
		}
	}
	return 0, ""
}

type remedy struct {
	is   func(error) bool
	text string
}

// isOneOf returns a function that reports whether an error is one of the targets.
func isOneOf(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
}

// isBoth returns a function that reports whether an error is both.
func isBoth(one, other error) func(error) bool {
	return func(err error) bool { return errors.Is(err, one) && errors.Is(err, other) }
}

// remedies are tried in this order.
var remedies = []remedy{
	{IsNoPrimary, "install the primary CNI, or wait for it: `watch` chains into it when it comes. Where pods have a " +
		"network already, set --conf-dir (cni.confDir of the chart) to the directory that the runtime reads: `crictl info` " +
		"(containerd: confDir) or `crio status config` (CRI-O: network_dir) prints it"},
	{IsReadinessFile, "use --mode nad or --mode aux on this node"},
	{isOneOf(errDangling), "mount the directory of the target into the container, at the same path; or remove the " +
		"link, if the runtime does not find its target either"},
	{isOneOf(errVersion), "install a release of the plugin that speaks it; until then nothing is chained, and pods " +
		"start as without the plugin"},
	{isOneOf(errElsewhere), "set --bin-dir (cni.binDir of the chart) to the directory in which the runtime looks for " +
		"plugins; where it looks in several, name the others with --runtime-bin-dir (cni.runtimeBinDirs)"},
	{isOneOf(unix.ENOEXEC), "install the plugin that was built for this machine's architecture"},
	{isBoth(errNotRun, unix.EACCES), "the directory may be mounted noexec: mount it without, or set --bin-dir " +
		"(cni.binDir of the chart) to another in which the runtime looks for plugins"},
	{IsNeeded, "delete these pods, by draining the node for instance, and purge again; what stays does nothing but " +
		"answer for them. containerd does not need it: say which runtime it is, as in --runtime-version containerd://2.1.4"},
	{isOneOf(unix.ENOSPC, unix.EDQUOT), "free some space on that file system; nothing was changed"},
	{isOneOf(unix.EROFS),
		"mount that directory writable into this container, or choose another with --bin-dir or --conf-dir"},
	{isOneOf(fs.ErrPermission), "run as root on the node, with the SELinux type spc_t where SELinux is enforcing"},
	{isOneOf(unix.EBUSY), "mount the directory into this container, not the single file"},
	{isOneOf(exchange.ErrNoExchange), "use --drop-in always if the runtime reads drop-ins"},
	{isOneOf(conflist.ErrNotJSON, conflist.ErrNotObject, conflist.ErrNoType, conflist.ErrPlugins, conflist.ErrNoPlugins,
		conflist.ErrNoName),
		"repair the file; its owner may rewrite it by itself"},
	{isOneOf(fs.ErrNotExist, unix.ENOTDIR), "check that the directory exists on the node and is mounted at that path"},
	{isOneOf(exchange.ErrBusy), "wait until the other program has closed the file; `watch` tries again by itself"},
}
