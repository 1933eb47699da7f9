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
	codeConfig    = 7 // invalid network configuration (CNI SPEC.md, "Error")
)

// leftWithin limits the wait for a process that the plugin has left with its output open. It counts from the plugin's
// end, and what has not been read by then is lost. On a starved node reading may come late, so it is as long as the
// plugin itself may take. Tests change it.
var leftWithin = answersWithin

// Why our entry is not chained although there is a network: no pod of the node would start with it.
var (
	errVersion   = errors.New("the plugin does not speak the version of that network")
	errElsewhere = errors.New("the runtime looks for plugins elsewhere")
	errNotRun    = errors.New("it cannot be run where it was installed")
)

// ErrLate says that the plugin did not answer in time. That is no fault of the plugin or of its settings: on a busy
// node it may answer the next time.
var ErrLate = fmt.Errorf("it has not answered within %s", answersWithin)

// Validate asks the plugin in c.Source, by STATUS of CNI, whether it accepts our entry: with an entry that it refuses,
// no pod of the node would start. The error is the plugin's, which names the key, the value and what is valid, or says
// that the plugin cannot run here, or is ErrLate. Other results of STATUS do not prevent an installation. Without a
// Source it returns nil.
func Validate(ctx context.Context, c Config) error {
	c, err := c.withDefaults()
	if err != nil || c.Source == "" {
		return err
	}
	refusal, err := c.askStatus(ctx, c.Source)
	return errors.Join(err, refusal)
}

// answers are what the plugin says about itself.
type answers struct {
	versions []string // the supported CNI versions
	refusal  error    // why it refuses the entry; nil: it accepts it
}

// ask asks the installed plugin at its own path: the file system may not allow programs to run, and the binary may be
// that of another architecture.
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

// askVersion returns the CNI versions that a plugin supports.
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

// askStatus returns why a plugin refuses the entry, or nil.
func (c Config) askStatus(ctx context.Context, plugin string) (refusal, err error) {
	// The plugin gets exactly the entry that will be installed, with its numbers. 1.1.0 is the first version with
	// STATUS.
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

// call runs a plugin for a command that is not about a container.
func (c Config) call(ctx context.Context, plugin, command string, stdin []byte) ([]byte, error) {
	run := c.run
	if run == nil {
		run = execute
	}
	env := []string{"CNI_COMMAND=" + command, "CNI_PATH=" + c.BinDir, entry.EnvInstaller + "=1"}
	return run(ctx, plugin, env, stdin)
}

// execute runs a program. Running a program that has just been written may fail with ETXTBSY: a process that was forked
// meanwhile has it open. It then tries again.
func execute(ctx context.Context, path string, env []string, stdin []byte) (out []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	for {
		plugin := exec.CommandContext(ctx, path)
		plugin.Env, plugin.Stdin, plugin.WaitDelay = env, bytes.NewReader(stdin), leftWithin
		if out, err = plugin.Output(); errors.Is(err, exec.ErrWaitDelay) { // it succeeded, and left a process
			return out, nil
		}
		switch { // err may only say that it was killed
		case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
			return nil, ErrLate
		case err != nil && ctx.Err() != nil:
			return nil, ctx.Err()
		}
		if !errors.Is(err, unix.ETXTBSY) {
			return out, err
		}
		time.Sleep(time.Millisecond)
	}
}

// prove returns why the installed plugin cannot serve a network with these CNI versions, or nil.
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

// fits returns why no pod would start if our entry were chained into the network, or nil.
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

// harms reports whether an error of fits requires that a chained entry is removed: the runtime cannot run the plugin,
// or the plugin does not support the network's version. A record proves that the runtime can run it.
func (c chain) harms(err error) bool {
	if errors.Is(err, errVersion) {
		return true
	}
	// Other failures to run a program are temporary, or about this process alone.
	notRun := errors.Is(err, errNotRun) && (errors.Is(err, unix.ENOEXEC) || errors.Is(err, unix.EACCES))
	return (notRun || errors.Is(err, errElsewhere)) && !c.runs()
}

// runs reports whether a record proves that the runtime runs the plugin. Records are on a tmpfs, so they are from this
// boot.
func (c Config) runs() bool {
	entries, _ := os.ReadDir(filepath.Join(c.Entry.StateDir, "pods"))
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return filepath.Ext(e.Name()) == ".json" })
}

// pluginDirs returns the directories in which the runtime looks for plugins, as far as they are known.
func (c Config) pluginDirs() []string { return append([]string{c.BinDir}, c.RuntimeBinDirs...) }

// notFound returns the network's own plugins that are in none of the runtime's directories. A symbolic link counts with
// any target, because this process may not see the target.
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
