package node

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A primary CNI restores its file whenever we change it. The agent does not repair it each time, is not ready, and says
// why. Pods outside the mesh start as usual. The wait holds mesh pods until the agent has run the plugin for them. The
// agent does not conclude that the runtime ignores our entry.
func TestFight(t *testing.T) {
	r := newRig(t)
	conflist := r.path("net.d/10-net.conflist")
	alone := fmt.Sprintf(`{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "bridge", "bridge": "fight0",
		"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.92.0.0/24"}]]}}]}`, r.path("ipam"))
	restore := func() {
		must(t, os.WriteFile(r.path("net.d/.new"), []byte(alone), 0o644))
		must(t, os.Rename(r.path("net.d/.new"), conflist))
	}
	restore()
	must(t, os.MkdirAll(r.path("cache/results"), 0o755))
	r.startAgent("--repair=apply", "--cni-cache-dir="+r.path("cache"), "--netns-dir="+r.dir)
	r.ready()
	stop, restored := make(chan bool), make(chan int)
	go func() {
		for n := 0; ; {
			select {
			case <-stop:
				restored <- n
				return
			case <-time.After(time.Millisecond):
				if data, err := os.ReadFile(conflist); err == nil && string(data) != alone {
					restore()
					n++
				}
			}
		}
	}()
	r.eventually("it is known to be contested", func() bool {
		status, body := r.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "again and again") &&
			r.metric("installation_contested") == "1"
	})
	late := 0
	for i := range 6 {
		plain := r.sandbox(r.create(r.podOf(fmt.Sprint("plain-", i), nil)))
		plain.addAs("eth0")
		mesh := r.podOf(fmt.Sprint("cart-", i), meshAnnotations())
		mesh.Spec.InitContainers = []corev1.Container{{Name: "istio-validation", Image: "wait"}}
		s := r.sandbox(r.create(mesh))
		address := s.addAs("eth0")
		if _, err := s.store.Get(s.ID, "eth0"); err != nil {
			late++
		}
		now := metav1.Now()
		r.status(s.pod, corev1.PodStatus{Phase: corev1.PodPending, PodIP: address, StartTime: &now,
			PodIPs: []corev1.PodIP{{IP: address}}, InitContainerStatuses: []corev1.ContainerStatus{{
				Name: "istio-validation", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}}})
		status, out := s.wait("--mode=any", "--timeout=1")
		if _, err := s.store.Get(s.ID, "eth0"); err != nil && status == 0 {
			t.Errorf("%s has no rules, and its wait ends: %s", s.pod.Name, out)
		}
		r.eventually("its rules are there, and its mark", func() bool {
			rec, err := s.store.Get(s.ID, "eth0")
			return err == nil && markOn(r.pod(s.pod.Name)) == want(rec)
		})
		if status, out := s.wait("--mode=any", "--timeout=60"); status != 0 {
			t.Errorf("%s: status %d: %s", s.pod.Name, status, out)
		}
		if n := len(r.events(s.pod.Name, "MeshBypassed")); n > 0 {
			t.Errorf("%d Events of a bypass", n)
		}
	}
	close(stop)
	t.Logf("%d of 6 mesh pods were made while the plugin was not chained; the primary has restored its file %d times",
		late, <-restored)
	if late == 0 {
		t.Error("no pod came while the plugin was not chained")
	}
	r.ready()
}
