// Command istio-pod-network-install puts the CNI plugin on a node and into its network, says what is there, keeps it
// there, and takes it out again. The work is done by package install.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/envflag"
)

const help = `istio-pod-network-install: puts the CNI plugin istio-pod-network on this node and into its network

  istio-pod-network-install install   [flags]   binary first, then configuration; may be repeated
  istio-pod-network-install uninstall [flags]   configuration back to its original; the binary stays unless --purge
  istio-pod-network-install status    [flags]   what is there and what is missing; changes nothing
  istio-pod-network-install watch     [flags]   install, then repair at once whatever changes, until SIGTERM,
                                                which leaves everything in place

Modes:
  chain  last in the chain of the network that the runtime uses: spliced into its .conflist, or a drop-in file where the
         runtime is known to read those (containerd 2.1, CRI-O 1.33 and later). A .conf becomes a .conflist.
  nad    a file of its own for Multus, <conf-dir>/istio-pod-network.conf (OpenShift)
  aux    a file of its own in Multus's auxiliary chain, <aux-dir>/50-istio-pod-network.conf (OpenShift 4.19 and later)

Flags; each is also an environment variable, --conf-dir as INSTALL_CONF_DIR:
`

const exits = `
Exit status: 0 done, or for status: ready; 1 failed; 2 wrong usage; 3 not ready, or no primary network yet.
`

func buildVersion() string { return buildinfo.Version() }

// Exit statuses.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotReady = 3
)

// program holds the process' edges.
type program struct {
	getenv         func(string) string
	stdout, stderr io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p := program{os.Getenv, os.Stdout, os.Stderr}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// options are what the command line says beside what is to be installed.
type options struct {
	config            install.Config
	file              string
	json, purge, keep bool
}

func (p program) run(ctx context.Context, args []string) int {
	var o options
	flags := o.flags(p.stderr)
	if len(args) == 0 {
		flags.Usage()
		return exitUsage
	}
	verb, ok := map[string]func(context.Context, options) int{
		"install": p.install, "uninstall": p.uninstall, "status": p.status, "watch": p.watch,
	}[args[0]]
	switch {
	case args[0] == "--version" || args[0] == "version":
		fmt.Fprintln(p.stdout, "istio-pod-network-install", buildVersion())
		return 0
	case args[0] == "help" || args[0] == "--help" || args[0] == "-h":
		flags.SetOutput(p.stdout)
		flags.Usage()
		return 0
	case !ok:
		return p.misused("unknown command %q; valid: install, uninstall, status, watch, --help, --version", args[0])
	}
	if err := envflag.Set(flags, "INSTALL_", p.getenv); err != nil {
		return p.misused("%v", err)
	}
	if err := flags.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	if flags.NArg() > 0 {
		return p.misused("unexpected argument %q", flags.Arg(0))
	}
	if o.purge && o.keep {
		return p.misused("--purge and --keep-binary exclude each other")
	}
	if o.file != "" {
		text, err := os.ReadFile(o.file)
		if err != nil {
			return p.failed(err)
		}
		// A setting that the plugin refuses must not keep it on the node.
		if o.config.Entry, err = entry.Parse(text); err != nil && (args[0] != "uninstall" || o.config.Entry.IsZero()) {
			return p.failed(fmt.Errorf("--network-config: %w", err))
		}
	}
	return verb(ctx, o)
}

func (o *options) flags(out io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet("istio-pod-network-install", flag.ContinueOnError)
	f.SetOutput(out)
	o.config.Flags(f)
	f.StringVar(&o.file, "network-config", "", "`file` with the plugin's entry, a JSON object (default "+entry.DefaultText+")")
	f.BoolVar(&o.json, "json", false, "status: print JSON instead of a table")
	f.BoolVar(&o.purge, "purge", false, "uninstall: remove the binary and the records too; where CRI-O or Multus runs pods that were made with it, they cannot be deleted then")
	f.StringVar(&o.config.StateDir, "state-dir", "/run/istio-pod-network", "uninstall: the plugin's stateDir, `directory` of the records")
	f.BoolVar(&o.keep, "keep-binary", false, "uninstall: keep the binary, which is the default")
	f.Usage = func() {
		fmt.Fprint(f.Output(), help)
		f.PrintDefaults()
		fmt.Fprint(f.Output(), exits)
	}
	return f
}

func (p program) install(ctx context.Context, o options) int {
	if err := o.config.Accepts(ctx); err != nil {
		return p.failed(err)
	}
	if err := install.Install(o.config); err != nil {
		return p.failed(err)
	}
	return p.status(ctx, o)
}

func (p program) uninstall(_ context.Context, o options) int {
	if err := install.Uninstall(o.config, o.purge); err != nil {
		return p.failed(err)
	}
	return 0
}

func (p program) status(_ context.Context, o options) int {
	s, err := install.LookAt(o.config)
	if err != nil {
		return p.failed(err)
	}
	if o.json {
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		err = e.Encode(s)
	} else {
		err = s.WriteTable(p.stdout)
	}
	switch {
	case err != nil:
		return p.failed(err)
	case !s.Ready:
		return exitNotReady
	}
	return 0
}

// watch prints a line whenever what is missing, or why, changes.
func (p program) watch(ctx context.Context, o options) int {
	if err := o.config.Accepts(ctx); err != nil {
		return p.failed(err)
	}
	said := ""
	k := install.Keeper{Config: o.config, Report: func(pass install.Pass) {
		line := pass.String()
		if line != said {
			fmt.Fprintln(p.stderr, line)
		}
		said = line
	}}
	if err := k.Run(ctx); err != nil {
		return p.failed(err)
	}
	return 0
}

func (p program) failed(err error) int {
	fmt.Fprintln(p.stderr, "istio-pod-network-install: "+install.Explain(err))
	if install.IsNoPrimary(err) {
		return exitNotReady
	}
	return exitFailed
}

func (p program) misused(format string, args ...any) int {
	fmt.Fprintf(p.stderr, "istio-pod-network-install: "+format+"\n", args...)
	return exitUsage
}
