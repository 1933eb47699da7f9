package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// metrics tests a scrape by a Prometheus without a certificate in a STRICT mesh. pilot-agent serves the metrics of app
// and sidecar at the address in the injector's annotations, and Envoy its own. Istio documents that these ports are not
// captured (istio.io/latest/docs/ops/integrations/prometheus). The app's own port is captured.
func (m *serviceMesh) metrics(r *rig) {
	r.namespace = m.namespace
	pod := m.app(r, "measured", "measured", "v1")
	pod.Annotations["prometheus.io/scrape"], pod.Annotations["prometheus.io/port"] = "true", fmt.Sprint(webPort)
	container(pod, "app").Ports = []corev1.ContainerPort{{ContainerPort: webPort}}
	r.guests(pod)
	pod = r.ready("measured")
	for key, want := range map[string]string{"scrape": "true", "port": "15020", "path": "/stats/prometheus"} {
		if got := pod.Annotations["prometheus.io/"+key]; got != want {
			r.Errorf("prometheus.io/%s is %q, not %q", key, got, want)
		}
	}
	at := func(port int, path string) string {
		return "http://" + net.JoinHostPort(pod.Status.PodIP, fmt.Sprint(port)) + path
	}
	for port, wants := range map[int][]string{15020: {"shop_orders 7", "envoy_"}, 15090: {"envoy_"}} {
		for _, want := range wants {
			r.eventually(fmt.Sprintf("%d shows %s", port, want), func() bool {
				text, err := fetch(at(port, "/stats/prometheus"))
				return err == nil && strings.Contains(text, want)
			})
		}
	}
	if text, err := fetch(at(webPort, "/metrics")); err == nil {
		r.Errorf("the app's own port answers plaintext: %q", text)
	}
	m.keeps(r, "measured")
}

// fetch returns the body of an HTTP response, with any status.
func fetch(url string) (string, error) {
	response, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return string(data), err
}
