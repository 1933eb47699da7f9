package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/internal/program/flags"
	"golang.org/x/sys/unix"
)

const probeHelp = `says what an installation would find on this node, as JSON, and changes nothing

It has the plugin try the rules of a pod in a new network namespace, which is gone afterwards, looks at the
directories of network configurations and of plugins, and reads which of them containerd's or CRI-O's own
configuration names. istio-pod-networkctl check --pre --probe-nodes runs it in pods
that see the file system of their node below --root. The keys are those of package agent/inspect.

Flags; each is also an environment variable, --root as AGENT_ROOT:

{flags}

Exit status: 0 printed; 1 failed; 2 wrong usage.
`

// prober looks at a node.
type prober struct {
	root, plugin      string
	primary           string
	confDirs, binDirs []string
	runtimeDirs       []string
	containerd, crio  []string // paths of their configuration files
	chroot            func(string) error
}

// probeCommand runs the command probe and returns the exit status.
func probeCommand(ctx context.Context, p program.Program, args []string) int {
	its := prober{containerd: containerdFiles, crio: crioFiles, chroot: func(root string) error {
		return errors.Join(syscall.Chroot(root), os.Chdir("/"))
	}}
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.StringVar(&its.root, "root", "/", "`directory` with the node's file system; the program changes its root to it")
	f.StringVar(&its.plugin, "plugin", "/istio-pod-network", "`file` of the plugin that tries the rules, not below --root")
	f.StringVar(&its.primary, "primary", "", "the network to chain into, by its `name` or that of its file (default: the "+
		"first of each directory)")
	list := func(to *[]string, name, usage string) {
		flags.Func(f, name, usage, "an absolute path", func(dir string) bool {
			*to = append(*to, filepath.Clean(dir))
			return filepath.IsAbs(dir)
		})
	}
	list(&its.confDirs, "conf-dir", "`directory` of network configurations; may be repeated (default "+
		install.DefaultConfDir+")")
	list(&its.binDirs, "bin-dir", "`directory` of plugins; may be repeated (default "+install.DefaultBinDir+")")
	list(&its.runtimeDirs, "runtime-bin-dir", "`directory` in which the runtime looks for plugins beside that; may be "+
		"repeated")
	p.Help = flags.Help(p.Help, f)
	if status, ended := flags.Parse(p, f, envPrefix, args); ended {
		return status
	}
	if its.confDirs == nil {
		its.confDirs = []string{install.DefaultConfDir}
	}
	if its.binDirs == nil {
		its.binDirs = []string{install.DefaultBinDir}
	}
	found, err := its.probe(ctx)
	if err == nil {
		err = json.NewEncoder(p.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", p.Name, err)
		return program.ExitFailed
	}
	return program.ExitDone
}

// probe makes all checks. It runs the plugin before it changes the root, because the plugin's file is not below the
// node's root.
func (p prober) probe(ctx context.Context) (found inspect.Probed, err error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return found, err
	}
	found.Kernel = unix.ByteSliceToString(name.Release[:])
	if found.Rules, err = p.tryRules(ctx); err != nil {
		return found, err
	}
	if p.root != "/" {
		if err := p.chroot(p.root); err != nil {
			return found, fmt.Errorf("changing the root to %q: %w", p.root, err)
		}
	}
	for _, dir := range p.confDirs {
		its, _, err := p.lookAt(dir, p.binDirs[0])
		if err != nil {
			return found, err
		}
		found.Networks = append(found.Networks, its)
	}
	for _, dir := range p.binDirs {
		_, missing, err := p.lookAt(p.confDirs[0], dir)
		if err != nil {
			return found, err
		}
		found.Plugins = append(found.Plugins, inspect.Plugins{Directory: dir, Exists: isDir(dir), Missing: missing})
	}
	found.Runtimes = p.runtimes()
	return found, nil
}

// tryWithin limits the plugin's STATUS.
const tryWithin = time.Minute

// What the plugin says: the error code if no backend works (docs/reference.md), and the warning if none could be tried.
const (
	codeUnusable = 50
	untried      = "no backend could be tried"
)

// tryRules asks the plugin, by STATUS, whether nftables accepts the rules of a pod. Other backends need programs of the
// node, which this container does not have.
func (p prober) tryRules(ctx context.Context) (tried inspect.Rules, err error) {
	// The plugin writes what it has found to a file in stateDir, for the node's agent. This directory cannot be created,
	// so nothing is written.
	e, err := entry.Parse([]byte(`{"type": "` + entry.Type + `", "backend": "nftables", "agentSocket": "",
		"stateDir": "/proc/none"}`))
	if err != nil {
		return tried, err
	}
	stdin, err := e.With(map[string]any{"cniVersion": "1.1.0", "name": entry.Type})
	if err != nil {
		return tried, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.plugin)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.Env = []string{"CNI_COMMAND=STATUS", "CNI_PATH=" + filepath.Dir(p.plugin)}
	err = cmd.Run()
	var said struct {
		Code         int
		Msg, Details string
	}
	switch {
	case err == nil && !strings.Contains(stderr.String(), untried):
		return inspect.Rules{Looked: true, OK: true}, nil
	case err == nil:
		return inspect.Rules{Detail: strings.TrimSpace(stderr.String())}, nil
	case !errors.As(err, new(*exec.ExitError)) || json.Unmarshal(stdout.Bytes(), &said) != nil:
		return inspect.Rules{Detail: fmt.Sprintf("running %s: %v: %s", p.plugin, err, bytes.TrimSpace(stderr.Bytes()))}, nil
	}
	text := strings.TrimSuffix(said.Msg+": "+said.Details, ": ")
	return inspect.Rules{Looked: said.Code == codeUnusable, Detail: text}, nil
}

// lookAt returns what the installer finds in the directory of configurations, and the plugins of that network that are
// not in binDir.
func (p prober) lookAt(confDir, binDir string) (n inspect.Network, missing []string, err error) {
	n = inspect.Network{Directory: confDir, Exists: isDir(confDir)}
	s, err := install.LookAt(install.Config{ConfDir: confDir, BinDir: binDir, RuntimeBinDirs: p.runtimeDirs,
		Primary: p.primary})
	if err != nil {
		return n, nil, err
	}
	n.File, n.Name, n.Chain = s.Active, s.Network, s.Plugins
	for _, line := range s.Missing {
		if why, is := strings.CutPrefix(line, s.Active+": "); is && s.Active != "" {
			n.Protected = why
		}
	}
	for _, o := range s.Others {
		n.Others = append(n.Others, strings.TrimSuffix(o.Path+": "+o.Problem, ": "))
	}
	return n, s.NotFound, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
