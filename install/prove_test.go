package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/install/installtest"
	"github.com/istio-pod-network/controller/internal/await"
	"golang.org/x/sys/unix"
)

// An entry is refused if the plugin says so, or cannot be run. Other results of STATUS do not prevent its installation.
func TestValidate(t *testing.T) {
	for name, c := range map[string]struct{ program, refused string }{
		"takes it":          {"grep -q '\"cniVersion\":\"1.1.0\"'", ""},
		"reads it as it is": {`grep -q '"mtu":1e4'`, ""},
		"is asked STATUS":   {`[ "$CNI_COMMAND" = STATUS ]`, ""},
		"by the installer":  {`[ "$ISTIO_POD_NETWORK_INSTALLER" = 1 ]`, ""},
		"refuses it": {`echo '{"code": 7, "msg": "backend: invalid value \"x\"; valid: auto"}'; exit 1`,
			`network configuration: backend: invalid value "x"; valid: auto`},
		"is not ready":          {`echo '{"code": 50, "msg": "no agent"}'; exit 1`, ""},
		"says nothing":          {"exit 3", "running the plugin"},
		"is of another machine": {"", "exec format error"},
		"is no executable":      {"-", "permission denied"},
	} {
		source := filepath.Join(t.TempDir(), "plugin")
		text, mode := "#!/bin/sh\n"+c.program+"\n", os.FileMode(0o755)
		switch c.program {
		case "":
			text = "\x7fELF of another machine"
		case "-":
			mode = 0o644
		}
		if err := os.WriteFile(source, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		entry := parsed([]byte(`{"type": "istio-pod-network", "mtu": 1e4}`))
		err := Validate(context.Background(), Config{Source: source, Entry: entry})
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %v, want %q", name, err, c.refused)
		}
	}
	if err := Validate(context.Background(), Config{Entry: parsed(ours)}); err != nil {
		t.Errorf("nobody to ask: %v", err)
	}
}

// A plugin that does not answer in time, as on a busy node, has not refused anything.
func TestValidateLate(t *testing.T) {
	source := filepath.Join(t.TempDir(), "plugin")
	await.Must(t, os.WriteFile(source, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755))
	c := Config{Source: source, Entry: parsed(ours)}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := Validate(ctx, c); !errors.Is(err, ErrLate) {
		t.Errorf("late: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := Validate(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// An entry is chained only if it will run: not if the plugin does not support the list's version, cannot be run where
// it is installed, or is in a directory in which the runtime does not look. If it was chained by an earlier release, it
// is then removed, unless a record proves that the runtime runs the plugin.
func TestFits(t *testing.T) {
	speaks := func(versions string) program {
		return func(_ context.Context, _ string, env []string, _ []byte) ([]byte, error) {
			if slices.Contains(env, "CNI_COMMAND=VERSION") {
				return []byte(`{"supportedVersions": [` + versions + `]}`), nil
			}
			return nil, nil
		}
	}
	cannot := func(err error) program {
		return func(context.Context, string, []string, []byte) ([]byte, error) { return nil, err }
	}
	refuses := func(ctx context.Context, path string, env []string, stdin []byte) ([]byte, error) {
		if slices.Contains(env, "CNI_COMMAND=STATUS") {
			return []byte(`{"code": 7, "msg": "logLevel: invalid value"}`), new(exec.ExitError)
		}
		return everything(ctx, path, env, stdin)
	}
	azure := `{"cniVersion": "0.3.0", "name": "azure",
		"plugins": [{"type": "azure-vnet", "ipam": {"type": "azure-vnet-ipam"}}]}`
	ptp := []string{"ptp"}
	next := `{"cniVersion": "1.1.0", "cniVersions": ["1.2.0"], "name": "net", "plugins": [{"type": "ptp"}]}`
	for name, c := range map[string]struct {
		conf     string
		run      program
		programs []string // in binDir
		beside   []string // in another directory in which the runtime looks
		recorded bool
		refused  string // words of the refusal; "": it is chained
		stays    bool   // whether the entry stays if it was chained before
	}{
		"0.3.0": {conf: azure, programs: []string{"azure-vnet", "azure-vnet-ipam"}},
		"0.3.0, older plugin": {conf: azure, programs: []string{"azure-vnet"},
			run: speaks(`"0.3.1", "1.0.0"`), refused: `"0.3.0"`},
		"a version to come":  {conf: next, programs: ptp, refused: `"1.2.0"`, recorded: true},
		"of another machine": {conf: list, programs: ptp, run: cannot(unix.ENOEXEC), refused: "architecture"},
		"mounted noexec":     {conf: list, programs: ptp, run: cannot(unix.EACCES), refused: "mounted noexec"},
		"noexec, but recorded": {conf: list, programs: ptp,
			run: cannot(unix.EACCES), recorded: true, refused: "noexec", stays: true},
		"no answer in time": {conf: list, programs: ptp,
			run: cannot(context.DeadlineExceeded), refused: "deadline", stays: true},
		"no memory":            {conf: list, programs: ptp, run: cannot(unix.ENOMEM), refused: "memory", stays: true},
		"entry refused":        {conf: list, programs: ptp, run: refuses, refused: "logLevel", stays: true},
		"elsewhere":            {conf: azure, refused: "(azure-vnet, azure-vnet-ipam)"},
		"elsewhere, recorded":  {conf: azure, recorded: true},
		"some are there":       {conf: azure, programs: []string{"azure-vnet-ipam"}},
		"in another directory": {conf: azure, beside: []string{"azure-vnet"}},
	} {
		for _, dropIn := range []DropIn{DropInNever, DropInAlways} {
			for _, before := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s %v", name, dropIn, before), func(t *testing.T) {
					n := newNode(t, "10-net.conflist", list)
					n.DropIn = dropIn
					state := filepath.Join(t.TempDir(), "state")
					n.Entry = parsed([]byte(fmt.Sprintf(`{"type": "istio-pod-network", "stateDir": %q}`, state)))
					n.write("10-net.conflist", c.conf)
					if before {
						for _, name := range []string{"ptp", "azure-vnet"} {
							n.program(name)
						}
						former := n.Config
						former.run = speaks(`"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "1.2.0"`)
						await.Must(t, Install(former))
						await.Must(t, os.Remove(filepath.Join(n.BinDir, "azure-vnet")))
					}
					await.Must(t, os.Remove(filepath.Join(n.BinDir, "ptp")))
					installtest.Programs(t, n.BinDir, c.programs...)
					n.RuntimeBinDirs = []string{filepath.Join(t.TempDir(), "beside")}
					installtest.Programs(t, n.RuntimeBinDirs[0], c.beside...)
					if c.recorded {
						await.Must(t, os.MkdirAll(filepath.Join(state, "pods"), 0o700))
						await.Must(t, os.WriteFile(filepath.Join(state, "pods", "a-eth0.json"), nil, 0o600))
					}
					if c.run != nil {
						n.run = c.run
					}
					err := Install(n.Config)
					s := n.status()
					chained := strings.Contains(n.tree(), `\"istio-pod-network\"`)
					if c.refused == "" {
						if err != nil || !s.Ready || !chained {
							t.Fatalf("%v; %+v", err, s)
						}
						return
					}
					fails(t, err, c.refused)
					if s.Ready || !strings.Contains(strings.Join(s.Missing, " "), c.refused) {
						t.Errorf("%+v", s)
					}
					if want := before && c.stays; chained != want {
						t.Errorf("chained %v, want %v: %s", chained, want, n.tree())
					}
				})
			}
		}
	}
}

// Missing plugins of the network are reported, and an unchanged plugin is asked only once.
func TestKeeperAsksOnce(t *testing.T) {
	withDHCP := strings.Replace(list, `"type": "ptp"`, `"type": "ptp", "ipam": {"type": "dhcp"}`, 1)
	n := newNode(t, "10-net.conflist", withDHCP)
	asked := 0
	n.run = func(ctx context.Context, path string, env []string, stdin []byte) ([]byte, error) {
		asked++
		return everything(ctx, path, env, stdin)
	}
	var last Pass
	k := Keeper{Config: n.Config, contest: unbounded, Report: func(p Pass) { last = p }}
	i, err := newInstaller(n.Config, new(memo))
	await.Must(t, err)
	for range 10 {
		n.write("10-net.conflist", list)
		k.pass(i)
	}
	if asked != 2 { // VERSION and STATUS
		t.Errorf("the plugin was run %d times for 10 passes", asked)
	}
	n.write("10-net.conflist", withDHCP)
	k.pass(i)
	if !last.Ready || !slices.Equal(last.NotFound, []string{"dhcp"}) || !strings.Contains(last.String(), ": dhcp") {
		t.Errorf("%s: %+v", last, last.Status)
	}
}
