package redirect

import (
	"strconv"

	"github.com/istio-pod-network/controller/internal/invalid"
)

// Environment of the proxy container that is read, as in Istio's own plugin.
const (
	EnvDNSCapture   = "ISTIO_META_DNS_CAPTURE"
	EnvInvalidDrop  = "INVALID_DROP"
	EnvDisableEnvoy = "DISABLE_ENVOY"
)

// readProxy takes what Istio's plugin takes from the proxy container: its user and group, DNS capture, invalid-drop.
func (s *Spec) readProxy(pod Pod, proxy Container) error {
	uid, err := containerID("runAsUser", proxy.RunAsUser, pod.RunAsUser)
	if err != nil {
		return err
	}
	gid, err := containerID("runAsGroup", proxy.RunAsGroup, pod.RunAsGroup)
	if err != nil {
		return err
	}
	// Root (Istio's injector runs a TPROXY sidecar so) keeps the default: uid 0 is never exempt, the gid exempts the
	// proxy.
	if uid != 0 {
		s.ProxyUID = uid
	}
	if gid != 0 {
		s.ProxyGID = gid
	}
	s.DNSCapture = envBool(proxy, EnvDNSCapture, s.DNSCapture)
	s.DropInvalid = envBool(proxy, EnvInvalidDrop, s.DropInvalid)
	return nil
}

// containerID returns the container's ID, else the pod's, else 0.
func containerID(field string, own, pods *int64) (ID, error) {
	id := own
	if id == nil {
		id = pods
	}
	if id == nil {
		return 0, nil
	}
	text := strconv.FormatInt(*id, 10)
	parsed, err := ParseID(text)
	if err != nil {
		return 0, invalid.Text("container "+ProxyContainer+" securityContext."+field, text, err.Error(), "0 to 4294967294")
	}
	return parsed, nil
}

// envBool reads a boolean as Istio's plugin does: absent keeps the default, unreadable is false.
func envBool(c Container, name string, unset bool) bool {
	text, present := c.Env[name]
	if !present {
		return unset
	}
	parsed, err := strconv.ParseBool(text)
	return err == nil && parsed
}
