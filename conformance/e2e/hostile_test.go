package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// A pod's annotations are data, even if nothing but the plugin checks them. Invalid settings are refused with the
// annotation's name, and no other annotation has an effect on the node.
func TestHostileAnnotations(t *testing.T) {
	r := newRig(t)
	r.installed("admissionPolicy.enabled=false")
	r.seen(r.appPod("plain"))
	victim := filepath.Join(stateDir, "victim")
	refused := map[string]map[string]string{
		"shell":    {"traffic.sidecar.istio.io/excludeOutboundPorts": "80; touch " + victim},
		"subshell": {"traffic.sidecar.istio.io/excludeOutboundIPRanges": "$(touch " + victim + ")"},
		"nft":      {"traffic.sidecar.istio.io/excludeInterfaces": "a\" drop; flush ruleset; #"},
		"path":     {"sidecar.istio.io/interceptionMode": "../../../../bin/sh"},
		"lines":    {"traffic.sidecar.istio.io/includeInboundPorts": "80\n-A OUTPUT -j ACCEPT"},
		"nul":      {"traffic.sidecar.istio.io/excludeInboundPorts": "80\u0000443"},
		"huge":     {"traffic.sidecar.istio.io/includeOutboundPorts": strings.Repeat("80,", 30000) + "x"},
	}
	for name, settings := range refused {
		pod := r.meshPod(name)
		maps.Copy(pod.Annotations, settings)
		r.create(pod)
	}
	for name, settings := range refused {
		key := slices.Collect(maps.Keys(settings))[0]
		r.eventually("the kubelet and an Event name the annotation of "+name, func() bool {
			all := events(r.namespace)
			return strings.Contains(all, name+" FailedCreatePodSandBox") &&
				strings.Contains(all, name+" InvalidMeshAnnotation The pod cannot start: ") && strings.Contains(all, key)
		})
		r.stillWaits(name)
	}
	prefixes := []string{}
	for i := range 4000 {
		prefixes = append(prefixes, fmt.Sprintf("172.%d.%d.0/24", 16+i/256, i%256))
	}
	taken := map[string]map[string]string{
		"free-text": {"notes": "`reboot`; \"; flush ruleset; $(reboot) \\ ' \n\t\r %s %n {{.}} <>&",
			"pod-network-controller.istio.io/reason": "made up", "pod-network-controller.istio.io/netns": "../../x"},
		"pasted":    {annotation.Status: annotation.Initialized, annotation.NetNS: "a/1/1"},
		"spared":    {annotation.Status: annotation.NotRequired, annotation.NetNS: "a/1/1"},
		"full":      {"notes": strings.Repeat("x", 200<<10)},
		"long-list": {"traffic.sidecar.istio.io/excludeOutboundIPRanges": strings.Join(prefixes, ",")},
	}
	for name, change := range taken {
		pod := r.meshPod(name)
		maps.Copy(pod.Annotations, change)
		r.create(pod)
	}
	for name := range taken {
		r.throughSidecar(name)
		r.marked(name)
	}
	tooMuch := r.meshPod("too-much")
	tooMuch.Annotations["notes"] = strings.Repeat("x", 1<<20)
	if _, err := r.tryCreate(tooMuch); err == nil {
		t.Error("the API server takes 1 MiB of annotations: this has to be a scenario then")
	}
	if _, err := os.Stat(r.node.Path(victim)); err == nil {
		t.Error("an annotation was run")
	}
}

// An app with the user or the group of its sidecar can bypass it. The plugin reports the pod by an Event, or refuses
// it, as the operator chose. If only the image sets the user, the Event comes when the pod's status shows it.
func TestSharedProxyUser(t *testing.T) {
	r := newRig(t)
	other := int64(appUser)
	shared := func(name string) *corev1.Pod {
		pod := r.meshPod(name)
		container(pod, "app").SecurityContext = restricted(proxyUser)
		return pod
	}
	r.installed()
	r.seen(shared("warned"))
	r.eventually("an Event says why", func() bool {
		return strings.Contains(events(r.namespace), fmt.Sprintf("warned ProxyUserShared Container app runs with the user %d",
			proxyUser))
	})
	r.installed("sharedProxyUser=refuse")
	group := shared("group")
	container(group, "app").SecurityContext.RunAsUser = &other
	for _, pod := range []*corev1.Pod{shared("user"), group} {
		r.create(pod)
		r.eventually("the kubelet and an Event say why "+pod.Name+" does not start", func() bool {
			all, reason := events(r.namespace), fmt.Sprintf("container app: invalid %s %d", pod.Name, proxyUser)
			return strings.Contains(all, pod.Name+" FailedCreatePodSandBox") && strings.Contains(all, reason) &&
				strings.Contains(all, fmt.Sprintf("%s ProxyUserShared Container app runs with the %s %d", pod.Name, pod.Name,
					proxyUser))
		})
		r.stillWaits(pod.Name)
	}
	archive := filepath.Join(r.TempDir(), "user.tar")
	const image = "e2e.local/user:1"
	must(r, cluster.Image(archive, image, fmt.Sprint(proxyUser),
		[]cluster.File{{Source: filepath.Join(isolated.BinDir(), "podprogram"), Path: "podprogram"}}, "/podprogram"))
	must(r, r.node.Import(archive))
	pod := r.meshPod("by-its-image")
	app := container(pod, "app")
	app.Image, app.SecurityContext.RunAsUser, app.SecurityContext.RunAsGroup = image, nil, nil
	r.create(pod)
	r.running(pod.Name)
	r.eventually("an Event tells of the image's user", func() bool {
		return strings.Contains(events(r.namespace),
			fmt.Sprintf("by-its-image ProxyUserShared Container app runs with the user %d", proxyUser))
	})
}

// The plugin works with the longest names that a node can have. The kubelet's log directory of a pod has the namespace,
// name and UID in its name, and a file name has at most 255 bytes.
func TestLongNames(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	rigs++
	long := fmt.Sprint("shop-", rigs, "-")
	r.namespace = r.namedNamespace(long+strings.Repeat("n", 63-len(long)), enforcing("restricted"), nil)
	const most = 255 - 63 - 36 - len("__")
	name := strings.Repeat("p", 63) + "." + strings.Repeat("o", 63) + "." + strings.Repeat("d", most-128)
	r.create(r.meshPod(name))
	r.throughSidecar(name)
	r.marked(name)
}

// After the agent has gone, another process listens on its socket and says that no pod is in the mesh. The plugin
// checks who listens, and who may write to the socket's directory, and does not ask.
func TestFakeAgent(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed("agentTimeout=1s")
		r.seen(r.appPod("plain"))
		r.stopAgents()
		room := r.node.Path(stateDir)
		var asked atomic.Int64
		for _, fake := range []struct {
			name  string
			user  int
			mode  os.FileMode // of the directory while the plugin looks
			words string
		}{{"of-another-user", 1000, 0o755, "only root is believed"},
			{"in-a-public-room", 0, 0o777, "nobody but root may write to it"}} {
			socket := filepath.Join(room, "agent.sock")
			_ = os.Remove(socket)
			closed := r.until(func() error { _ = os.Remove(socket); return os.Chmod(room, 0o755) })
			must(r, os.Chmod(room, 0o777))
			r.eventually("no plugin has seen the directory as it was", func() bool {
				return len(r.node.Processes("istio-pod-network")) == 0
			})
			l, err := listenAs(fake.user, socket)
			must(r, err)
			r.Cleanup(func() { _ = l.Close() })
			must(r, os.Chmod(room, fake.mode))
			go lie(l, &asked)
			r.create(r.meshPod(fake.name))
			r.eventually("the kubelet says that the agent is not to be trusted", func() bool {
				all := events(r.namespace)
				return strings.Contains(all, fake.name+" FailedCreatePodSandBox") && strings.Contains(all, fake.words)
			})
			r.stillWaits(fake.name)
			_ = l.Close()
			closed()
		}
		if asked.Load() > 0 {
			r.Errorf("the plugin has asked one who is not the agent %d times", asked.Load())
		}
		r.startAgents()
		r.throughSidecar("of-another-user")
		r.throughSidecar("in-a-public-room")
	})
}

// listenAs listens on a socket as another user. The kernel records the user of the listening process.
func listenAs(user int, socket string) (l net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked, so the thread ends with this goroutine
		// the user cannot reach the node's files through /proc
		if err = errors.Join(unix.Unshare(unix.CLONE_FS), unix.Chdir(filepath.Dir(socket))); err != nil {
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(user), uintptr(user), uintptr(user)); e != 0 {
			err = e
			return
		}
		l, err = net.Listen("unix", filepath.Base(socket))
	}()
	<-done
	return l, err
}

// lie answers every question of the plugin with a pod outside the mesh.
func lie(l net.Listener, asked *atomic.Int64) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if line, _ := bufio.NewReader(c).ReadString('\n'); line != "" {
			asked.Add(1)
		}
		fmt.Fprintln(c, `{"version": 1, "pod": {"namespace": "x", "name": "x", "complete": true}}`)
		_ = c.Close()
	}
}
