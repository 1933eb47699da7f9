package install

import (
	"context"
	"flag"
	"path/filepath"
	"slices"

	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/internal/program/flags"
)

// Mode says how the plugin joins the network of the pods.
type Mode string

// The modes.
const (
	ModeChain Mode = "chain" // last in the list of the network that the runtime uses
	ModeNAD   Mode = "nad"   // a network of its own, which Multus adds to pods that request it (OpenShift)
	ModeAux   Mode = "aux"   // in Multus's auxiliary chain, for every pod (OpenShift 4.19 and later)
)

// DropIn says when ModeChain uses a drop-in directory instead of the primary's own file.
type DropIn string

// Values of DropIn. A runtime that does not read drop-ins would never run the plugin, so DropInAuto uses one only if
// the runtime is known to read them.
const (
	DropInAuto   DropIn = "auto"   // if the runtime of RuntimeVersion is known to read them
	DropInAlways DropIn = "always" // the operator knows that the runtime reads them
	DropInNever  DropIn = "never"
)

// Default directories. DefaultAuxDir is OpenShift's.
const (
	DefaultBinDir  = "/opt/cni/bin"
	DefaultConfDir = "/etc/cni/net.d"
	DefaultNADDir  = "/etc/cni/multus/net.d"
	DefaultAuxDir  = "/var/run/multus/cni/net.d/vendor-cni-chain"
)

// Names of files that only this installer writes.
const (
	dropInFile = "99-" + entry.Type + ".conf"
	nadFile    = entry.Type + ".conf"
	auxFile    = "50-" + entry.Type + ".conf"
)

// readiness are names of files that tell Multus that the primary network is ready. If such a file is renamed or edited,
// Multus deletes its own configuration, and the node loses its network.
var readiness = []string{"10-ovn-kubernetes.conf", "80-openshift-network.conf", "00-multus.conf"}

// Config says what to install, and where. The zero value of an optional field means its default.
type Config struct {
	BinDir         string      // where the runtime looks for plugins; default: DefaultBinDir
	ConfDir        string      // configurations of the runtime, or of Multus; default: DefaultConfDir, DefaultNADDir
	AuxDir         string      // Multus's auxiliary chain, in which only ModeAux has a file; default: DefaultAuxDir
	Source         string      // path of the plugin's binary to install; "": do not install it
	Entry          entry.Entry // the entry to chain; default: entry.Default
	Mode           Mode        // default: ModeChain
	DropIn         DropIn      // default: DropInAuto
	RuntimeVersion string      // as in the node's status, such as "containerd://2.1.4"; "": unknown
	StateDir       string      // directory of the plugin's records, which a purge empties; "": do not
	CacheDir       string      // where libcni and Multus cache the configurations of pods; "": a purge does not check it
	Primary        string      // ModeChain: name of the network to chain into, or of its file; "": the first valid one
	RuntimeBinDirs []string    // more directories in which the runtime looks for plugins

	run program // for tests; nil: execute
}

// program runs a plugin and returns its standard output.
type program func(ctx context.Context, path string, env []string, stdin []byte) ([]byte, error)

// Flags defines the flags for all fields but Entry, and sets their defaults.
func (c *Config) Flags(f *flag.FlagSet) {
	f.StringVar((*string)(&c.Mode), "mode", string(ModeChain), "`how` to join the network: chain, nad or aux")
	f.StringVar(&c.BinDir, "bin-dir", DefaultBinDir, "`directory` of the runtime's plugins")
	f.StringVar(&c.ConfDir, "conf-dir", "", "`directory` of the configurations (default "+DefaultConfDir+
		", in modes nad and aux "+DefaultNADDir+")")
	f.StringVar(&c.AuxDir, "aux-dir", DefaultAuxDir, "`directory` of Multus's auxiliary chain")
	f.StringVar(&c.Source, "source", "", "the plugin's `binary` to install; without it, the binary is left alone")
	f.StringVar(&c.Primary, "primary", "", "the network to chain into in mode chain, by its `name` or that of its file "+
		"(default the first in --conf-dir)")
	flags.Func(f, "runtime-bin-dir", "another `directory` in which the runtime looks for plugins; may be repeated, or a "+
		"list separated by colons", "an absolute path", func(text string) bool {
		for _, dir := range filepath.SplitList(text) {
			if !filepath.IsAbs(dir) {
				return false
			}
			c.RuntimeBinDirs = append(c.RuntimeBinDirs, filepath.Clean(dir))
		}
		return text != ""
	})
	f.StringVar((*string)(&c.DropIn), "drop-in", string(DropInAuto),
		"`when` to use a drop-in file in mode chain: auto, always, never")
	f.StringVar(&c.RuntimeVersion, "runtime-version", "", "the node's containerRuntimeVersion, such as containerd://2.1.4")
}

// Check returns an error for the first invalid value of c, an *invalid.Error, or nil.
func (c Config) Check() error {
	_, err := c.withDefaults()
	return err
}

// withDefaults returns c with its defaults filled in. The error is that of Check.
func (c Config) withDefaults() (Config, error) {
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set((*string)(&c.Mode), string(ModeChain))
	set((*string)(&c.DropIn), string(DropInAuto))
	set(&c.BinDir, DefaultBinDir)
	set(&c.AuxDir, DefaultAuxDir)
	if c.Mode != ModeChain {
		set(&c.ConfDir, DefaultNADDir)
	}
	set(&c.ConfDir, DefaultConfDir)
	if c.Entry.IsZero() {
		c.Entry = entry.Default()
	}
	switch {
	case !slices.Contains([]Mode{ModeChain, ModeNAD, ModeAux}, c.Mode):
		return c, invalid.Text("--mode", string(c.Mode), "", "chain, nad or aux")
	case !slices.Contains([]DropIn{DropInAuto, DropInAlways, DropInNever}, c.DropIn):
		return c, invalid.Text("--drop-in", string(c.DropIn), "", "auto, always or never")
	}
	return c, nil
}

// Directories returns the directories of plugins, and those of configurations that are read or written.
func (c Config) Directories() (plugins, configurations []string) {
	c, _ = c.withDefaults() // an invalid value names no directory
	configurations = []string{c.ConfDir}
	if c.Mode != ModeChain {
		configurations = append(configurations, c.AuxDir)
	}
	return c.pluginDirs(), configurations
}

// ownFiles returns the path of our file in ModeNAD or ModeAux, and that of our file in the other of these modes, which
// an earlier installation may have left.
func (c Config) ownFiles() (path, former string) {
	nad, aux := filepath.Join(c.ConfDir, nadFile), filepath.Join(c.AuxDir, auxFile)
	if c.Mode == ModeAux {
		return aux, nad
	}
	return nad, aux
}

// dropInOf returns the path of the drop-in for a network.
func (c Config) dropInOf(network string) string { return filepath.Join(c.ConfDir, network, dropInFile) }

// binary returns the path of the installed plugin.
func (c Config) binary() string { return filepath.Join(c.BinDir, entry.Type) }
