package e2e

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// initRevision is a revision of istiod without our values: its pods get istio-init.
const initRevision = "with-init"

// keepsIstioInit tests way C of docs/injection.md: if Istio's values cannot be changed, the chart's policy replaces
// istio-init by our wait. The pods use mTLS under Pod Security restricted, with and without a native sidecar.
func (m *serviceMesh) keepsIstioInit(r *rig) {
	m.revision(r, initRevision)
	m.injectedBy(r, initRevision, "restricted")
	natives := map[string]string{"plain-sidecar": "false", "native-sidecar": "true"}
	for name, native := range natives {
		pod := m.app(r, name, name, "v1")
		pod.Annotations["sidecar.istio.io/nativeSidecar"] = native
		r.create(pod)
		r.service(name, nil)
	}
	for name := range natives {
		pod := r.ready(name)
		wait := container(pod, "istio-init")
		if wait.Image != pluginImage() || len(wait.SecurityContext.Capabilities.Add) > 0 {
			r.Errorf("istio-init of %s is %+v", name, wait)
		}
		if log := r.says(name, wait.Name); !strings.Contains(log, "ready after") {
			r.Errorf("the wait of %s says %q", name, log)
		}
		if always := container(pod, "istio-proxy").RestartPolicy; (always != nil) != (natives[name] == "true") ||
			always != nil && *always != corev1.ContainerRestartPolicyAlways {
			r.Errorf("the sidecar of %s is no %s", name, name)
		}
		r.marked(name)
		m.speaks(r, name)
		m.hearsFront(r, "http://"+name+"."+r.namespace+"/")
		m.keepsPlaintextOut(r, name)
		m.keeps(r, name)
	}
}
