package uninstall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/install/installtest"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/fdleak"
	"github.com/sirupsen/logrus"
)

func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

const primary = `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}`

// kept is libcni's cache file about a pod that was created with the plugin in its network.
const kept = `{"kind": "cniCacheV1", "containerId": "c", "ifName": "eth0", "networkName": "net",
	"config": "eyJuYW1lIjogIm5ldCIsICJwbHVnaW5zIjogW3sidHlwZSI6ICJpc3Rpby1wb2QtbmV0d29yayJ9XX0=",
	"cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "plain"]]}`

// noted is Multus's file about such a pod.
const noted = `[{"Bytes": "eyJ0eXBlIjogImlzdGlvLXBvZC1uZXR3b3JrIn0="}]`

// The configuration is removed at once. The binary is removed when there is no sandbox, plain pods' included, whose
// deletion uses our entry. With containerd, which never uses it, the binary is removed at once.
func TestNode(t *testing.T) {
	asked := func(version string, err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return version, err }
	}
	unasked := func(context.Context) (string, error) { t.Error("asked for the runtime"); return "", nil }
	for name, c := range map[string]struct {
		runtime string // as configured
		version func(context.Context) (string, error)
		mode    install.Mode
		file    string // in the caches, about a sandbox with our entry
		stays   string // words of the reason why the binary stays while the file is there
		settles bool   // the binary is removed only after pods in creation had time to appear
	}{
		"containerd, configured": {"containerd://1.7.1", unasked, install.ModeChain, "results/x", "", false},
		"containerd, asked":      {"", asked("containerd://2.1.4", nil), install.ModeChain, "results/x", "", false},
		"CRI-O, splice":          {"", asked("cri-o://1.33.0", nil), install.ModeChain, "results/x", "shop/plain", true},
		"CRI-O, drop-in":         {"", asked("cri-o://1.33.0", nil), install.ModeChain, "", "", true},
		"Multus":                 {"", asked("containerd://2.1.4", nil), install.ModeNAD, "multus/x", "Multus calls", false},
		"Multus without us":      {"", asked("cri-o://1.33.0", nil), install.ModeAux, "", "", false},
		"Multus, delegate": {"", asked("containerd://2.1.4", nil), install.ModeChain, "multus/x", "Multus calls",
			false},
		"not known": {"", asked("", errors.New("connection refused")), install.ModeChain, "results/x",
			"the container runtime calls", true},
	} {
		dir := t.TempDir()
		binary, conf := filepath.Join(dir, "bin", entry.Type), filepath.Join(dir, "net.d", "10-net.conflist")
		state, cache := filepath.Join(dir, "state"), filepath.Join(dir, "cache")
		for path, contents := range map[string]string{conf: primary, filepath.Join(state, "pods", "c-eth0.json"): "{}"} {
			await.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			await.Must(t, os.WriteFile(path, []byte(contents), 0o600))
		}
		if c.file != "" {
			path := filepath.Join(cache, c.file)
			await.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			contents := map[string]string{"results/x": kept, "multus/x": noted}[c.file]
			await.Must(t, os.WriteFile(path, []byte(contents), 0o600))
		}
		installtest.Plugin(t, filepath.Join(dir, "plugin"), "")
		installtest.Programs(t, filepath.Dir(binary), "bridge")
		config := install.Config{
			BinDir: filepath.Dir(binary), ConfDir: filepath.Dir(conf), AuxDir: filepath.Join(dir, "aux"),
			Source: filepath.Join(dir, "plugin"), StateDir: state, CacheDir: cache,
			Mode: c.mode, RuntimeVersion: c.runtime,
		}
		await.Must(t, install.Install(config))
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			log := logrus.New()
			log.SetOutput(&out)
			var told []string
			n := NewNode(config, time.Minute, c.version, func(why string) { told = append(told, why) }, log)
			if out, state := n.Ready(); out || state != "not looked at yet" {
				t.Errorf("%s: ready is %t, %q", name, out, state)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); n.Run(ctx) }()
			expect := func(when string, ready, installed bool, words string) {
				t.Helper()
				synctest.Wait()
				isOut, said := n.Ready()
				if isOut != ready || !strings.Contains(said, words) {
					t.Errorf("%s, %s: ready is %t, %q, want %t, %q", name, when, isOut, said, ready, words)
				}
				for _, path := range []string{binary, filepath.Join(state, "pods")} {
					if _, err := os.Stat(path); (err == nil) != installed {
						t.Errorf("%s, %s: %s: %v", name, when, path, err)
					}
				}
				if s, err := install.LookAt(config); err != nil || s.Chained != install.NotChained {
					t.Errorf("%s, %s: %+v %v", name, when, s, err)
				}
			}
			time.Sleep(30 * time.Second) // never at the start of a round
			if c.stays != "" {
				for range settleRounds + 1 { // however long it checks
					expect("with a pod", true, true, c.stays)
					time.Sleep(time.Minute)
				}
				await.Must(t, os.Remove(filepath.Join(cache, c.file)))
				time.Sleep(time.Minute)
			}
			for round := 0; c.settles && round < settleRounds; round++ {
				expect(fmt.Sprint("without a pod, round ", round), false, true, "the binary stays for a moment")
				time.Sleep(time.Minute)
			}
			expect("in the end", true, false, "binary and records are gone")
			await.Must(t, install.Install(config)) // somebody restores it
			time.Sleep(time.Minute)
			await.Must(t, os.RemoveAll(filepath.Join(state, "pods")))
			expect("installed again", true, false, "binary and records are gone")
			stop()
			<-ended
			if n := strings.Count(out.String(), "binary and records are gone"); n != 1 {
				t.Errorf("%s: logged %d times: %s", name, n, out.String())
			}
			if want := map[bool]int{true: 1}[c.stays != ""]; len(told) != want {
				t.Errorf("%s: told %q, want %d times", name, told, want)
			}
		})
	}
}

// A pod that was being created when the configuration was removed becomes known only later: the wait then starts again.
func TestNodeSettles(t *testing.T) {
	dir := t.TempDir()
	config := install.Config{
		BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"), RuntimeVersion: "cri-o://1.31.0",
		StateDir: filepath.Join(dir, "state"), CacheDir: dir,
	}
	installtest.Plugin(t, filepath.Join(dir, "plugin"), "")
	await.Must(t, os.MkdirAll(filepath.Join(dir, "results"), 0o755))
	n := NewNode(config, time.Minute, nil, func(string) {}, agenttest.Quiet())
	file := filepath.Join(dir, "results", "net-c-eth0")
	for range 2 {
		for range settleRounds {
			if state, done, err := n.remove(); err != nil || done {
				t.Fatalf("%q, %t, %v", state, done, err)
			}
		}
		await.Must(t, os.WriteFile(file, []byte(kept), 0o600))
		if state, done, err := n.remove(); err != nil || !done || !strings.Contains(state, "1 sandbox is there") {
			t.Errorf("%q, %t, %v", state, done, err)
		}
		await.Must(t, os.Remove(file))
	}
}

// The reason why the plugin cannot be removed is reported with a remedy, and the node is not ready.
func TestNodeFails(t *testing.T) {
	dir := t.TempDir()
	await.Must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	config := install.Config{BinDir: dir, ConfDir: filepath.Join(dir, "file"), RuntimeVersion: "containerd://2.1.4",
		StateDir: filepath.Join(dir, "state")}
	var out bytes.Buffer
	log := logrus.New()
	log.SetOutput(&out)
	n := NewNode(config, time.Minute, nil, nil, log)
	for range 2 {
		n.report(n.remove())
	}
	if isOut, state := n.Ready(); isOut || !strings.Contains(state, "remedy") || strings.Contains(state, "\n") {
		t.Errorf("ready is %t, %q", isOut, state)
	}
	if n := strings.Count(out.String(), "level=error"); n != 1 {
		t.Errorf("logged %d times: %s", n, out.String())
	}
}
