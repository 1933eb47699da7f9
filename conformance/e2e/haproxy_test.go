package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// transparent is a haproxy configuration that does a sidecar's work. It connects to the original destination, and tells
// the peer the client's address by the PROXY protocol. It connects to its own pod from 127.0.0.6, as Istio's proxy
// does.
const transparent = `global
  log stderr format raw daemon
defaults
  mode tcp
  timeout connect 5s
  timeout client 10s
  timeout server 10s
listen outbound
  bind 0.0.0.0:15001
  server original 0.0.0.0:0 send-proxy
listen inbound
  bind 0.0.0.0:15006
  server app 0.0.0.0:0 source 127.0.0.6
`

const haproxyImage = "e2e.local/haproxy:1"

// A real proxy in place of the stand-in: Debian's haproxy forwards connections in both directions.
func TestHAProxy(t *testing.T) {
	r := newRig(t)
	r.installed()
	must(t, r.importHAProxy())
	r.seen(r.appPod("plain"))
	_, err := nodes.Client.CoreV1().ConfigMaps(r.namespace).Create(r.ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "haproxy"}, Data: map[string]string{"haproxy.cfg": transparent},
	}, metav1.CreateOptions{})
	must(t, err)
	pod := r.meshPod("cart-0")
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "haproxy", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "haproxy"}},
	}})
	proxy := container(pod, "istio-proxy")
	proxy.Image, proxy.Command = haproxyImage, []string{"/usr/sbin/haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"}
	proxy.VolumeMounts = []corev1.VolumeMount{{Name: "haproxy", MountPath: "/etc/haproxy"}}
	container(pod, "app").Args = []string{target4}
	r.create(pod)
	r.running("cart-0")
	r.hears("cart-0", target4, "peer")
	if n := outside.passed(r.namespace, "cart-0"); n < enough {
		t.Errorf("the proxy has passed on %d connections", n)
	}
	if n := outside.reached(r.namespace, "cart-0"); n > 0 {
		t.Errorf("leak: %d connections without the proxy", n)
		r.leaks = n
	}
	r.attempts = strings.Count(r.said("cart-0", "app"), target4+" ")
	pod = r.pod("cart-0")
	pod.Status.PodIPs = pod.Status.PodIPs[:1] // the inbound listener is bound to IPv4
	r.answersFrom("app", pod, 8080)
}

// importHAProxy imports an image of this machine's haproxy, with its libraries, into the rig's node.
func (r *rig) importHAProxy() error {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		return err
	}
	files, err := cluster.Linked(program, "usr/sbin/haproxy")
	if err != nil {
		return err
	}
	if len(files) < 2 {
		return fmt.Errorf("%s is linked to nothing", program)
	}
	archive := filepath.Join(nodes.Dir, "haproxy.tar")
	if err := cluster.Image(archive, haproxyImage, "", files, "/usr/sbin/haproxy"); err != nil {
		return err
	}
	return r.node.Import(archive)
}
