package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/internal/entry"
	"golang.org/x/sys/unix"
)

const (
	answersWithin = 10 * time.Second
	codeConfig    = 7 // invalid network configuration, CNI SPEC.md "Error"
)

// Why our entry is not chained although the network is there: with it no pod of the node would start.
var (
	errVersion   = errors.New("the plugin does not speak the version of that network")
	errElsewhere = errors.New("the runtime looks for plugins elsewhere")
	errNotRun    = errors.New("it cannot be run where it was installed")
)

// Validate asks the plugin that is to be installed, by CNI's STATUS, whether it takes our entry: once chained, one that
// it refuses would keep every pod of the node from starting. The error is the plugin's, which names the key, the value
// and what is valid, or says that the plugin cannot be run here. Whatever else STATUS reports is no reason not to
// install. Without a Source nobody is asked.
func Validate(ctx context.Context, c Config) error {
	c, err := c.withDefaults()
	if err != nil || c.Source == "" {
		return err
	}
	refusal, err := c.askStatus(ctx, c.Source)
	return errors.Join(err, refusal)
}

// answers are what the plugin says of itself.
type answers struct {
	versions []string // of CNI that it speaks
	refusal  error    // of the entry; nil: it takes it
}

// ask asks the installed plugin, in its place: that directory may be one from which nothing can be run, and what is in
// it another machine's.
func (i *installer) ask() (answers, error) {
	return i.memo.answersOf(i.binary(), string(i.Entry.Text()), func() (said answers, err error) {
		ctx, cancel := context.WithTimeout(context.Background(), answersWithin)
		defer cancel()
		if said.versions, err = i.askVersion(ctx, i.binary()); err == nil {
			said.refusal, err = i.askStatus(ctx, i.binary())
		}
		if err != nil {
			return said, fmt.Errorf("%w: %w", errNotRun, err)
		}
		return said, nil
	})
}

// askVersion asks which versions of CNI a plugin speaks.
func (c Config) askVersion(ctx context.Context, plugin string) ([]string, error) {
	out, err := c.call(ctx, plugin, "VERSION", []byte(`{"cniVersion": "1.1.0"}`))
	var said struct{ SupportedVersions []string }
	if err == nil {
		err = json.Unmarshal(out, &said)
	}
	if err != nil {
		return nil, fmt.Errorf("running the plugin %q: %w", plugin, err)
	}
	return said.SupportedVersions, nil
}

// askStatus asks whether a plugin takes the entry.
func (c Config) askStatus(ctx context.Context, plugin string) (refusal, err error) {
	// What the plugin reads is what will be there, numbers included. 1.1.0 is the first version with STATUS.
	stdin, err := c.Entry.With(map[string]any{"cniVersion": "1.1.0", "name": entry.Type})
	if err != nil {
		return fmt.Errorf("network configuration: %w", err), nil
	}
	out, err := c.call(ctx, plugin, "STATUS", stdin)
	if err == nil {
		return nil, nil
	}
	var said struct {
		Code int
		Msg  string
	}
	if !errors.As(err, new(*exec.ExitError)) || json.Unmarshal(out, &said) != nil {
		return nil, fmt.Errorf("running the plugin %q: %w", plugin, err)
	}
	if said.Code == codeConfig {
		return fmt.Errorf("network configuration: %s", said.Msg), nil
	}
	return nil, nil
}

// call runs a plugin for a command that concerns no container.
func (c Config) call(ctx context.Context, plugin, command string, stdin []byte) ([]byte, error) {
	run := c.run
	if run == nil {
		run = execute
	}
	env := []string{"CNI_COMMAND=" + command, "CNI_PATH=" + c.BinDir, entry.EnvInstaller + "=1"}
	return run(ctx, plugin, env, stdin)
}

// execute runs a program. One that was written a moment ago is busy while a process that was forked meanwhile has it
// open still.
func execute(ctx context.Context, path string, env []string, stdin []byte) (out []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	for {
		plugin := exec.CommandContext(ctx, path)
		plugin.Env, plugin.Stdin, plugin.WaitDelay = env, bytes.NewReader(stdin), time.Second
		if out, err = plugin.Output(); errors.Is(err, exec.ErrWaitDelay) { // it has succeeded, and left a process
			return out, nil
		}
		if !errors.Is(err, unix.ETXTBSY) || ctx.Err() != nil {
			return out, err
		}
		time.Sleep(time.Millisecond)
	}
}

// prove reports why the installed plugin does not serve a network of these CNI versions, or nil.
func (i *installer) prove(versions []string) error {
	said, err := i.ask()
	if err != nil {
		return err
	}
	for _, version := range versions {
		if !slices.Contains(said.versions, version) {
			return fmt.Errorf("%w: %q; %q speaks %s", errVersion, version, i.binary(), strings.Join(said.versions, ", "))
		}
	}
	return said.refusal
}

// fits reports why no pod would start if our entry were chained into a network, or nil.
func (c chain) fits(f file) error {
	if err := c.prove(f.conf.Versions()); err != nil {
		return err
	}
	types := f.conf.Types()
	if missing := c.notFound(f); len(missing) == len(types) && !c.runs() {
		return fmt.Errorf("%w: none of the network's own plugins (%s) is in %s", errElsewhere, strings.Join(types, ", "),
			strings.Join(c.pluginDirs(), ", "))
	}
	return nil
}

// harms reports whether an entry that is chained already is to be taken out for an error of fits: the runtime does not
// come to an end with it. Where it does, as a record shows, only the network's version speaks against it.
func (c chain) harms(err error) bool {
	if errors.Is(err, errVersion) {
		return true
	}
	// What else may keep a program from being run passes, or is about this process alone.
	notRun := errors.Is(err, errNotRun) && (errors.Is(err, unix.ENOEXEC) || errors.Is(err, unix.EACCES))
	return (notRun || errors.Is(err, errElsewhere)) && !c.runs()
}

// runs reports whether a record proves that the runtime runs the plugin. Records are on a tmpfs: they are of this boot.
func (c Config) runs() bool {
	entries, _ := os.ReadDir(filepath.Join(c.Entry.StateDir, "pods"))
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return filepath.Ext(e.Name()) == ".json" })
}

// pluginDirs are the directories in which the runtime looks for plugins, as far as they are known.
func (c Config) pluginDirs() []string { return append([]string{c.BinDir}, c.RuntimeBinDirs...) }

// notFound returns which of the network's own plugins are in none of the runtime's directories. A link counts, whatever
// it leads to: its target may be outside of what this process sees.
func (c chain) notFound(f file) (missing []string) {
	for _, name := range f.conf.Types() {
		found := slices.ContainsFunc(c.pluginDirs(), func(dir string) bool {
			info, err := os.Lstat(filepath.Join(dir, name))
			return err == nil && !info.IsDir()
		})
		if !found {
			missing = append(missing, name)
		}
	}
	return missing
}
