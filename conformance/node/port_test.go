package node

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/facts"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// port is the address of the agent's HTTP server.
const port = "127.0.0.1:15088"

// flooded opens very many connections to the agent's port, each idle after its first request. It then checks the
// agent's health, its memory, and how many connections it keeps.
func (r *rig) flooded() {
	r.Helper()
	const held, kept = 6000, 64 + 128
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range held {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%200))}}
		c, err := d.Dial("tcp", port)
		if errors.Is(err, unix.ECONNRESET) {
			continue // the agent had refused it before the dialer looked
		}
		must(r, err)
		conns = append(conns, c)
		_, _ = fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
	}
	for range 20 {
		for _, path := range []string{"/healthz", "/readyz"} {
			if status, body := r.get(path); status != http.StatusOK {
				r.Errorf("beside %d connections the kubelet's probe gets %d %s", held, status, body)
			}
		}
	}
	r.withinMemory(fmt.Sprintf("beside %d connections", held))
	// It has answered the last probe, so it has accepted or refused all earlier connections.
	if files := r.files(); files > kept+100 {
		r.Errorf("the agent has %d files open, of which connections may be %d", files, kept)
	}
}

// files returns how many files the agent has open.
func (r *rig) files() int {
	r.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.agent.cmd.Process.Pid))
	must(r, err)
	return len(files)
}

// The same flood against an agent with --uninstall.
func TestFloodUninstalling(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent("--uninstall", "--runtime-version=containerd://2.1.4", "--log-level=info")
	r.out("")
	r.flooded()
	r.out("")
}

// If its port is taken, the agent still installs, answers and marks. It reports the problem and is not ready, so the
// startup taint stays. It can still uninstall. When the port is free, the agent gets it and is ready.
func TestTakenPort(t *testing.T) {
	const key = "example.com/agent-not-ready"
	r := newRig(t).withPrimary()
	r.grant(onNodes("get", "list", "watch", "patch"))
	r.taint(corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
	free := r.takePort()
	r.startAgent("--log-level=info", "--startup-taint="+key, "--sweep-after=500ms",
		"--runtime-version=containerd://1.6.20")
	r.eventually("it installs", func() bool {
		list, err := os.ReadFile(r.path("net.d/10-net.conflist"))
		return err == nil && strings.Contains(string(list), plugin) && r.exists("bin/"+plugin)
	})
	cart := r.mesh("cart")
	r.marked("cart", r.put(recordOf(cart)))
	known, err := facts.Ask(r.ctx, r.socket(), facts.Request{Namespace: cart.Namespace, Name: cart.Name,
		UID: string(cart.UID)})
	if err != nil || len(known.Containers) != 2 {
		t.Errorf("it answers %+v, %v", known, err)
	}
	r.saysTaken()
	for range 2 { // in rounds of the patrol, a ready agent would remove the taint
		pod := r.podOf("gone", meshAnnotations())
		pod.UID = "gone"
		gone := r.put(recordOf(pod))
		r.eventually("it sweeps", func() bool {
			_, err := r.store.Get(gone.ContainerID, gone.IfName)
			return errors.Is(err, os.ErrNotExist)
		})
	}
	if len(r.taints()) != 1 {
		t.Error("it is ready without its port")
	}
	free()
	r.ready()
	if _, body := r.get("/readyz"); !strings.Contains(body, "[+] HTTP: "+port) {
		t.Error(body)
	}
	r.eventually("the taint is gone", func() bool { return len(r.taints()) == 0 })
	r.agent.end(unix.SIGTERM)
	free = r.takePort()
	r.startAgent("--uninstall", "--runtime-version=containerd://1.6.20")
	r.eventually("the plugin is out", func() bool {
		list, err := os.ReadFile(r.path("net.d/10-net.conflist"))
		return err == nil && string(list) == primary && !r.exists("bin/"+plugin)
	})
	r.saysTaken()
	free()
	r.out("")
}

// takePort takes the agent's port, until the returned function is called.
func (r *rig) takePort() (free func()) {
	r.Helper()
	other, err := net.Listen("tcp", port)
	must(r, err)
	r.Cleanup(func() { _ = other.Close() })
	return func() { must(r, other.Close()) }
}

// saysTaken waits until the agent has logged once that it has no port.
func (r *rig) saysTaken() {
	r.Helper()
	said := func() int { return strings.Count(r.agent.log.String(), "no HTTP on "+port) }
	r.eventually("it says that it has no port", func() bool { return said() > 0 })
	if log := r.agent.log.String(); said() != 1 || !strings.Contains(log, "address already in use") {
		r.Error(log)
	}
}
