package e2e

import (
	"net"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probes tests probe rewriting. The injector directs the kubelet's probes of every kind to pilot-agent, which calls the
// app. So the pod becomes ready, although the mesh accepts only mTLS. A pod whose app does not answer does not become
// ready.
func (m *serviceMesh) probes(r *rig) {
	r.namespace = m.namespace
	pod, mute := m.app(r, "probed", "probed", "v1"), m.app(r, "mute", "mute", "v1")
	probe := func(h corev1.ProbeHandler) *corev1.Probe { return &corev1.Probe{ProbeHandler: h, PeriodSeconds: 1} }
	app := container(pod, "app")
	app.Ports = []corev1.ContainerPort{{ContainerPort: webPort}}
	app.StartupProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(linesPort)}})
	app.ReadinessProbe = probe(corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/",
		Port: intstr.FromInt32(webPort)}})
	app.LivenessProbe = probe(corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: webPort}})
	const nobodys = 8092
	container(mute, "app").ReadinessProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{
		Port: intstr.FromInt32(nobodys)}})
	r.guests(pod, mute)
	pod = r.ready("probed")
	r.probedByPilotAgent(pod)
	for _, c := range pod.Status.ContainerStatuses {
		if c.RestartCount > 0 {
			r.Errorf("%s was restarted: %+v", c.Name, c)
		}
	}
	r.eventually("pilot-agent answers the kubelet that the app of mute does not", func() bool {
		return strings.Contains(events(m.namespace),
			"mute Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 500")
	})
	m.keeps(r, "probed", "mute")
}

// probedByPilotAgent fails unless each probe of a pod's app is directed to pilot-agent, and pilot-agent gets an answer
// from the app.
func (r *rig) probedByPilotAgent(pod *corev1.Pod) {
	r.Helper()
	app := container(pod, "app")
	for name, p := range map[string]*corev1.Probe{"startupz": app.StartupProbe, "readyz": app.ReadinessProbe,
		"livez": app.LivenessProbe} {
		if p.HTTPGet == nil || p.HTTPGet.Path != "/app-health/app/"+name {
			r.Errorf("the probe %s is not rewritten: %+v", name, p)
			continue
		}
		url := "http://" + net.JoinHostPort(pod.Status.PodIP, p.HTTPGet.Port.String()) + p.HTTPGet.Path
		r.eventually("pilot-agent answers "+name+" for the app", func() bool { // as the kubelet does
			response, err := http.Get(url)
			if err != nil {
				return false
			}
			response.Body.Close()
			return response.StatusCode == http.StatusOK
		})
	}
}
