package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/install/installtest"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/program"
)

const primary = `{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}`

// shell runs the program with directories of its own.
type shell struct {
	dir string
	env map[string]string
}

func newShell(t *testing.T) shell {
	s := shell{dir: t.TempDir(), env: map[string]string{}}
	for name, value := range map[string]string{"BIN_DIR": "bin", "CONF_DIR": "conf", "AUX_DIR": "aux", "SOURCE": "plugin",
		"NETWORK_CONFIG": "entry", "CNI_CACHE_DIR": "cache", "STATE_DIR": "state"} {
		s.env["INSTALL_"+name] = filepath.Join(s.dir, value)
	}
	installtest.Plugin(t, filepath.Join(s.dir, "plugin"),
		"! grep -q loud || { echo '{\"code\": 7, \"msg\": \"logLevel: invalid value\"}'; exit 1; }")
	installtest.Programs(t, filepath.Join(s.dir, "bin"), "ptp")
	for name, contents := range map[string]string{
		"entry": `{"type": "istio-pod-network", "logLevel": "debug"}`} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(contents), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "conf"), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s shell) path() string { return filepath.Join(s.dir, "conf", "10-net.conflist") }

func (s shell) primary(t *testing.T) {
	if err := os.WriteFile(s.path(), []byte(primary), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (s shell) program(stdout, stderr io.Writer) installer {
	getenv := func(name string) string { return s.env[name] }
	return installer{program.Program{Name: "it", Help: help, Getenv: getenv, Stdout: stdout, Stderr: stderr}}
}

func (s shell) run(args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	p := s.program(&out, &errs)
	return p.run(context.Background(), args), out.String(), errs.String()
}

func (s shell) expect(t *testing.T, want int, words string, args ...string) string {
	t.Helper()
	status, stdout, stderr := s.run(args...)
	if status != want || !strings.Contains(stdout+stderr, words) {
		t.Errorf("%q: status %d, want %d and %q\n%s%s", args, status, want, words, stdout, stderr)
	}
	return stdout
}

func TestCommands(t *testing.T) {
	s := newShell(t)
	s.expect(t, 3, "no primary network", "install")
	s.expect(t, 3, "waiting: no primary network configuration yet", "status")
	s.primary(t)
	s.expect(t, 3, "without our entry", "status")
	s.expect(t, 0, "chained     spliced", "install")
	s.expect(t, 0, "ready       yes", "status")
	var state install.Status
	if err := json.Unmarshal([]byte(s.expect(t, 0, "", "status", "--json")), &state); err != nil || !state.Ready ||
		state.Chained != install.Spliced {
		t.Errorf("%v %+v", err, state)
	}
	if data, err := os.ReadFile(s.path()); err != nil || !strings.Contains(string(data), `"logLevel":"debug"`) {
		t.Errorf("%s %v", data, err)
	}
	s.expect(t, 0, "drop-in", "install", "--runtime-version", "containerd://2.1.4")
	s.expect(t, 0, "", "uninstall", "--keep-binary")
	if data, err := os.ReadFile(s.path()); err != nil || string(data) != primary {
		t.Errorf("%s %v", data, err)
	}
	binary := filepath.Join(s.dir, "bin", entry.Type)
	if _, err := os.Stat(binary); err != nil {
		t.Error("uninstall took the binary away, which DEL needs")
	}
	// what libcni has cached for a plain pod that was created while the entry was spliced
	kept := filepath.Join(s.dir, "cache", "results", "net-c-eth0")
	await.Must(t, os.MkdirAll(filepath.Dir(kept), 0o755))
	await.Must(t, os.WriteFile(kept, []byte(`{"kind": "cniCacheV1", "containerId": "c",
		"config": "eyJuYW1lIjogIm5ldCIsICJwbHVnaW5zIjogW3sidHlwZSI6ICJpc3Rpby1wb2QtbmV0d29yayJ9XX0="}`), 0o600))
	for _, runtime := range []string{"cri-o://1.31.0", ""} {
		s.expect(t, 1, "calls the plugin to delete them\n  remedy: delete these pods", "uninstall", "--purge",
			"--runtime-version", runtime)
		if _, err := os.Stat(binary); err != nil {
			t.Errorf("purged, and a pod cannot be deleted any more: %v", err)
		}
	}
	s.expect(t, 0, "", "uninstall", "--purge", "--runtime-version=containerd://1.7.1")
	if _, err := os.Stat(binary); err == nil {
		t.Error("purged, and still there")
	}
	s.expect(t, 0, "chained     spliced", "install")
	await.Must(t, os.Remove(kept))
	s.expect(t, 0, "", "uninstall", "--purge")
	if _, err := os.Stat(binary); err == nil {
		t.Error("no pod needs it, and it is still there")
	}
	s.expect(t, 0, "own file", "install", "--mode", "nad")
	s.expect(t, 0, "own file", "install", "--mode=aux")
}

// An entry that the plugin refuses is not installed, and nothing else is.
func TestRefusedEntry(t *testing.T) {
	s := newShell(t)
	s.primary(t)
	loud := []byte(`{"type": "istio-pod-network", "logLevel": "loud"}`)
	await.Must(t, os.WriteFile(s.env["INSTALL_NETWORK_CONFIG"], loud, 0o644))
	for _, verb := range []string{"install", "watch"} {
		s.expect(t, 1, "logLevel: invalid value", verb)
	}
	s.env["INSTALL_SOURCE"] = "" // there is no plugin to ask
	s.expect(t, 1, "logLevel: invalid value", "install")
	s.expect(t, 3, "the plugin is not installed", "status")
	s.expect(t, 0, "", "uninstall")
	if data, err := os.ReadFile(s.path()); err != nil || string(data) != primary {
		t.Errorf("%s %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "bin", entry.Type)); err == nil {
		t.Error("the plugin was installed")
	}
	misspelt := []byte(`{"type": "istio-pod-network", "agentSokcet": ""}`)
	if err := os.WriteFile(s.env["INSTALL_NETWORK_CONFIG"], misspelt, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"install", "watch"} {
		s.expect(t, 1, `invalid value "agentSokcet": unknown key; valid: agentSocket, `, verb)
	}
	s.expect(t, 0, "", "uninstall")
	if err := os.WriteFile(s.env["INSTALL_NETWORK_CONFIG"], []byte(`{"type": "x"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"install", "watch", "status", "uninstall"} {
		s.expect(t, 1, `--network-config: network configuration: it must be a JSON object of type "istio-pod-network"`, verb)
	}
}

// `status` needs no flags that say how the plugin was installed.
func TestStatusOfAnyEntry(t *testing.T) {
	s := newShell(t)
	s.primary(t)
	alone := map[string]string{}
	for _, name := range []string{"BIN_DIR", "CONF_DIR", "AUX_DIR"} {
		alone["INSTALL_"+name] = s.env["INSTALL_"+name]
	}
	other := shell{s.dir, alone}
	other.expect(t, 3, "without our entry", "status")
	s.expect(t, 0, "spliced", "install")
	other.expect(t, 0, "spliced", "status")
	s.expect(t, 0, "drop-in", "install", "--runtime-version", "containerd://2.1.4")
	other.expect(t, 0, "drop-in", "status")
	s.expect(t, 3, "is not as it should be", "status") // this call expects it spliced
	s.expect(t, 0, "own file", "install", "--mode", "nad")
	other.expect(t, 0, "own file", "status", "--mode", "nad")
	s.expect(t, 0, "own file", "install", "--mode", "aux")
	other.expect(t, 0, "own file", "status", "--mode", "aux")
}

func TestUsage(t *testing.T) {
	s := newShell(t)
	if status, stdout, stderr := s.run(); status != 2 || stdout != "" || stderr != "it: no command; valid: install, "+
		"uninstall, status, watch, --help, --version; see --help\n" {
		t.Errorf("without a command: status %d\n%s%s", status, stdout, stderr)
	}
	help := s.expect(t, 0, "Exit status", "--help")
	for _, word := range []string{"install ", "uninstall", "status", "watch", "-conf-dir", "/etc/cni/net.d", "SIGTERM"} {
		if !strings.Contains(help, word) {
			t.Errorf("the help does not say %q", word)
		}
	}
	s.expect(t, 0, "Modes:", "install", "--help")
	s.expect(t, 2, `unknown command "instal"`, "instal")
	s.expect(t, 2, `unexpected argument "now"`, "install", "now")
	s.expect(t, 2, "-nonsense", "install", "--nonsense")
	s.expect(t, 2, "exclude each other", "uninstall", "--purge", "--keep-binary")
	for _, command := range []string{"install", "uninstall", "status", "watch"} {
		s.expect(t, 2, `--mode: invalid value "x"; valid: chain, nad or aux; see --help`, command, "--mode", "x")
		s.expect(t, 2, `--drop-in: invalid value "x"; valid: auto, always or never; see --help`, command, "--drop-in", "x")
	}
	for _, wrong := range []string{"install --purge", "status --purge", "watch --json", "uninstall --json",
		"install --keep-binary", "status --state-dir=/x", "watch --cni-cache-dir=/x"} {
		s.expect(t, 2, "not a flag of "+strings.Fields(wrong)[0]+"; it is one of ", strings.Fields(wrong)...)
	}
	s.expect(t, 1, "remedy: check that the directory exists", "install", "--source", filepath.Join(s.dir, "none"))
	s.expect(t, 1, "no such file", "install", "--network-config", filepath.Join(s.dir, "none"))
	s.env["INSTALL_PURGE"] = "perhaps"
	s.expect(t, 2, `INSTALL_PURGE: invalid value "perhaps"`, "uninstall")
}

// The documentation has the same exit statuses as the help.
func TestExitStatus(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(help, "Exit status:\n")
	lines := strings.Split(strings.TrimSpace(list), "\n")
	for _, line := range lines {
		status, meaning, _ := strings.Cut(strings.TrimSpace(line), "  ")
		meaning = strings.NewReplacer("install and status", "`install` and `status`", "uninstall --purge",
			"`uninstall --purge`", "watch", "`watch`").Replace(meaning)
		if row := "| " + status + " | " + meaning + " |\n"; !strings.Contains(string(page), row) {
			t.Errorf("install.md does not have: %s", row)
		}
	}
	if len(lines) != exitNotReady+1 {
		t.Errorf("the help has %d statuses", len(lines))
	}
}

// watch prints once what is missing, and once that the node is ready. It leaves everything in place when it ends.
func TestWatch(t *testing.T) {
	s := newShell(t)
	out := await.NewOutput(t)
	p := s.program(out.File, out.File)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int)
	go func() { done <- p.run(ctx, []string{"watch"}) }()
	says := func(text string) {
		t.Helper()
		await.Eventually(t, time.Minute, "it says "+text, func() bool { return strings.Contains(out.String(), text) })
	}
	says("not ready: waiting: no primary")
	s.primary(t)
	says("ready: istio-pod-network is in " + s.path())
	for range 3 { // passes that find the node ready again
		binary := filepath.Join(s.env["INSTALL_BIN_DIR"], "istio-pod-network")
		await.Must(t, os.Remove(binary))
		await.Eventually(t, time.Minute, "it is back", func() bool { _, err := os.Stat(binary); return err == nil })
	}
	cancel()
	if status := <-done; status != 0 {
		t.Errorf("status %d", status)
	}
	got, last := out.String(), ""
	if !strings.HasPrefix(got, "not ready: waiting: no primary") {
		t.Errorf("%q", got)
	}
	for line := range strings.Lines(got) { // a pass directly after the removal of the binary prints such a line
		if line == last {
			t.Errorf("said twice: %q", got)
		}
		last = line
	}
	s.expect(t, 0, "spliced", "status")
}
