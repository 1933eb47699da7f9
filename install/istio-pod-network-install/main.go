// Command istio-pod-network-install installs the CNI plugin on a node and chains it into the network, shows what is
// installed, keeps it installed, and removes it. Package install does the work.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/excerpt"
	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/internal/program/flags"
)

const help = `puts the CNI plugin istio-pod-network on this node and into its network

  istio-pod-network-install install   [flags]   binary first, then configuration; may be repeated
  istio-pod-network-install uninstall [flags]   configuration back to its original; the binary stays unless --purge
  istio-pod-network-install status    [flags]   what is there and what is missing; changes nothing
  istio-pod-network-install watch     [flags]   install, then repair whatever changes, until SIGTERM,
                                                which leaves everything in place

Modes:
  chain  last in the chain of the network that the runtime uses: spliced into its .conflist, or a drop-in file where the
         runtime is known to read those (containerd 2.1, CRI-O 1.33 and later). A .conf becomes a .conflist.
  nad    a file of its own for Multus, <conf-dir>/istio-pod-network.conf (OpenShift)
  aux    a file of its own in Multus's auxiliary chain, <aux-dir>/50-istio-pod-network.conf (OpenShift 4.19 and later)

Flags; each is also an environment variable, --conf-dir as INSTALL_CONF_DIR:

{flags}

Exit status:
  0  done; of install and status: done, and this node is ready; of watch: ended by SIGTERM
  1  failed; of uninstall --purge also: pods still need the binary; of watch also: a directory is no longer mounted
  2  wrong usage: a command, flag or argument that is unknown or not of this command, or an invalid value
  3  not ready: install and status say what is missing, which may be a primary network that is not there yet
`

// exitNotReady is the exit status if the node is not ready. All programs have the others.
const exitNotReady = 3

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p := installer{program.New("istio-pod-network-install", help)}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// options are the values of the command line that are not in install.Config.
type options struct {
	config            install.Config
	file              string
	json, purge, keep bool
}

// installer is the program.
type installer struct{ program.Program }

func (p installer) run(ctx context.Context, args []string) int {
	var o options
	set := o.flags()
	p.Help = flags.Help(p.Help, set)
	const valid = "valid: install, uninstall, status, watch, --help, --version"
	if len(args) == 0 {
		return p.Misused(errors.New("no command; " + valid))
	}
	command, known := map[string]func(context.Context, options) int{
		"install": p.install, "uninstall": p.uninstall, "status": p.status, "watch": p.watch,
	}[args[0]]
	if p.Answer(args) {
		return program.ExitDone
	}
	if !known {
		return p.Misused(fmt.Errorf("unknown command %s; %s", excerpt.Quote(args[0]), valid))
	}
	if status, ended := flags.Parse(p.Program, set, "INSTALL_", args[1:]); ended {
		return status
	}
	if err := cmp.Or(ofCommand(set, args[0]), o.config.Check()); err != nil {
		return p.Misused(err)
	}
	if o.purge && o.keep {
		return p.Misused(errors.New("--purge and --keep-binary exclude each other"))
	}
	if o.file != "" {
		text, err := os.ReadFile(o.file)
		if err != nil {
			return p.failed(err)
		}
		o.config.Entry, err = entry.Parse(text)
		err = cmp.Or(err, o.config.Entry.CheckKeys())
		// An entry that the plugin refuses must not prevent uninstall and status.
		if err != nil && (args[0] == "install" || args[0] == "watch" || o.config.Entry.IsZero()) {
			return p.failed(fmt.Errorf("--network-config: %w", err))
		}
	}
	return command(ctx, o)
}

func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("", flag.ContinueOnError)
	o.config.Flags(f)
	f.StringVar(&o.file, "network-config", "",
		"`file` with the plugin's entry, a JSON object (default "+entry.DefaultText+")")
	f.BoolVar(&o.json, "json", false, "install, status: print JSON instead of a table")
	f.BoolVar(&o.purge, "purge", false, "uninstall: remove the binary and the records too, unless there are pods that "+
		"CRI-O, Multus, or a runtime that --runtime-version does not name, cannot delete without it")
	f.StringVar(&o.config.CacheDir, "cni-cache-dir", install.DefaultCacheDir,
		"uninstall: `directory` in which libcni and Multus keep what pods are deleted by; it is only read")
	f.StringVar(&o.config.StateDir, "state-dir", entry.DefaultStateDir,
		"uninstall: the plugin's stateDir, `directory` of the records")
	f.BoolVar(&o.keep, "keep-binary", false, "uninstall: keep the binary, which is the default")
	return f
}

// others matches the start of a flag's usage that names its commands. A flag without it is for all commands.
var others = regexp.MustCompile(`^(?:(?:install|uninstall|status|watch)(?:, |: ))+`)

// ofCommand returns an error if the command line has a flag of other commands: `install --purge` would otherwise
// silently ignore it. Environment variables are not checked, because they may be set for all commands.
func ofCommand(set *flag.FlagSet, command string) (err error) {
	set.Visit(func(f *flag.Flag) {
		of := strings.TrimSuffix(others.FindString(f.Usage), ": ")
		if of != "" && err == nil && !slices.Contains(strings.Split(of, ", "), command) {
			err = fmt.Errorf("--%s: not a flag of %s; it is one of %s", f.Name, command, of)
		}
	})
	return err
}

func (p installer) install(ctx context.Context, o options) int {
	if err := install.Validate(ctx, o.config); err != nil {
		return p.failed(err)
	}
	if err := install.Install(o.config); err != nil {
		return p.failed(err)
	}
	return p.status(ctx, o)
}

func (p installer) uninstall(_ context.Context, o options) int {
	if err := install.Uninstall(o.config, o.purge); err != nil {
		return p.failed(err)
	}
	return 0
}

func (p installer) status(_ context.Context, o options) int {
	s, err := install.LookAt(o.config)
	if err != nil {
		return p.failed(err)
	}
	if o.json {
		e := json.NewEncoder(p.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(s)
	} else {
		err = s.WriteTable(p.Stdout)
	}
	switch {
	case err != nil:
		return p.failed(err)
	case !s.Ready:
		return exitNotReady
	}
	return 0
}

// watch prints a line whenever what is missing, or the reason, changes.
func (p installer) watch(ctx context.Context, o options) int {
	if err := install.Validate(ctx, o.config); err != nil {
		return p.failed(err)
	}
	last, detached := "", ""
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	k := install.Keeper{Config: o.config, Report: func(pass install.Pass) {
		line := pass.String()
		if line != last {
			fmt.Fprintln(p.Stderr, line)
		}
		last = line
		if detached = pass.Detached; detached != "" {
			stop()
		}
	}, Warn: func(err error) { fmt.Fprintln(p.Stderr, err) }}
	if err := k.Run(ctx); err != nil {
		return p.failed(err)
	}
	if detached != "" {
		return program.ExitFailed // the container has to be created again
	}
	return 0
}

func (p installer) failed(err error) int {
	fmt.Fprintf(p.Stderr, "%s: %s\n", p.Name, install.Explain(err))
	if install.IsNoPrimary(err) {
		return exitNotReady
	}
	return program.ExitFailed
}
