package uninstall

import (
	"bytes"
	"context"
	"errors"
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
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/sirupsen/logrus"
)

func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

const primary = `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}`

// The configuration goes at once; the binary goes with it where the runtime does not need it for a DEL, else with the
// last record.
func TestNode(t *testing.T) {
	asked := func(version string, err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return version, err }
	}
	unasked := func(context.Context) (string, error) { t.Error("asked for the runtime"); return "", nil }
	for name, c := range map[string]struct {
		runtime string // as configured
		version func(context.Context) (string, error)
		mode    install.Mode
		records bool
		keeps   bool // the binary, while there are records
	}{
		"containerd, configured": {"containerd://1.7.1", unasked, install.ModeChain, true, false},
		"containerd, asked":      {"", asked("containerd://2.1.4", nil), install.ModeChain, true, false},
		"CRI-O":                  {"", asked("cri-o://1.33.0", nil), install.ModeChain, true, true},
		"CRI-O without records":  {"", asked("cri-o://1.33.0", nil), install.ModeChain, false, false},
		"Multus":                 {"", asked("containerd://2.1.4", nil), install.ModeNAD, true, true},
		"not known":              {"", asked("", errors.New("connection refused")), install.ModeChain, true, true},
	} {
		dir := t.TempDir()
		binary, conf := filepath.Join(dir, "bin", entry.Type), filepath.Join(dir, "net.d", "10-net.conflist")
		await.Must(t, os.MkdirAll(filepath.Dir(conf), 0o755))
		await.Must(t, os.WriteFile(conf, []byte(primary), 0o600))
		installtest.Plugin(t, filepath.Join(dir, "plugin"), "")
		installtest.Programs(t, filepath.Dir(binary), "bridge")
		config := install.Config{
			BinDir: filepath.Dir(binary), ConfDir: filepath.Dir(conf), AuxDir: filepath.Join(dir, "aux"),
			Source: filepath.Join(dir, "plugin"),
			Mode:   c.mode, RuntimeVersion: c.runtime,
		}
		await.Must(t, install.Install(config))
		store := record.Store{Dir: filepath.Join(dir, "state")}
		if c.records {
			r := agenttest.RecordFor(agenttest.MeshPod("cart"), "1/1")
			r.ContainerID = "c"
			await.Must(t, store.Put(r))
		}
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			log := logrus.New()
			log.SetOutput(&out)
			n := NewNode(config, store, time.Minute, c.version, log)
			if out, state := n.Ready(); out || state != "not looked at yet" {
				t.Errorf("%s: ready is %t, %q", name, out, state)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); n.Run(ctx) }()
			expect := func(when string, installed bool, words string) {
				t.Helper()
				synctest.Wait()
				isOut, state := n.Ready()
				if !isOut || !strings.Contains(state, words) {
					t.Errorf("%s, %s: ready is %t, %q, want %q", name, when, isOut, state, words)
				}
				if _, err := os.Stat(binary); (err == nil) != installed {
					t.Errorf("%s, %s: the binary: %v", name, when, err)
				}
				if s, err := install.LookAt(config); err != nil || s.Chained != install.NotChained {
					t.Errorf("%s, %s: %+v %v", name, when, s, err)
				}
			}
			if c.keeps {
				expect("with records", true, "the binary stays until the runtime has run it for the DEL of 1 pods")
				await.Must(t, store.Delete("c", "eth0"))
				time.Sleep(time.Minute)
			}
			expect("in the end", false, "binary and records are gone")
			await.Must(t, install.Install(config)) // somebody restores it
			time.Sleep(time.Minute)
			expect("installed again", false, "binary and records are gone")
			stop()
			<-ended
			if n := strings.Count(out.String(), "binary and records are gone"); n != 1 {
				t.Errorf("%s: logged %d times: %s", name, n, out.String())
			}
		})
	}
}

// What keeps the plugin on the node is said, with what can be done about it, and the node is not ready.
func TestNodeFails(t *testing.T) {
	dir := t.TempDir()
	await.Must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	config := install.Config{BinDir: dir, ConfDir: filepath.Join(dir, "file"), RuntimeVersion: "containerd://2.1.4"}
	var out bytes.Buffer
	log := logrus.New()
	log.SetOutput(&out)
	n := NewNode(config, record.Store{Dir: filepath.Join(dir, "state")}, time.Minute, nil, log)
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
