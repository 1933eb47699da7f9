package redirect

import (
	"slices"
	"strconv"

	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/annotation"
)

// Environment variables of the proxy container that are read. Istio's own init container and CNI plugin read them too:
// the injector writes the proxyMetadata of the mesh and of the pod there.
const (
	EnvDNSCapture   = "ISTIO_META_DNS_CAPTURE"
	EnvDropInvalid  = "DROP_INVALID" // the name that istio-init reads; INVALID_DROP takes precedence, as there
	EnvInvalidDrop  = "INVALID_DROP"
	EnvDisableEnvoy = "DISABLE_ENVOY"
	EnvDualStack    = "ISTIO_DUAL_STACK"             // the sidecar listens in both IP families
	EnvMode         = "ISTIO_META_INTERCEPTION_MODE" // tells the sidecar how its traffic is redirected
	// The groups whose outbound traffic is captured.
	EnvIncludeGroups = "ISTIO_OUTBOUND_OWNER_GROUPS"
	EnvExcludeGroups = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"
)

// ProxyVariables lists every environment variable that is read. All others can be dropped.
var ProxyVariables = []string{EnvDNSCapture, EnvDropInvalid, EnvInvalidDrop, EnvDisableEnvoy, EnvDualStack, EnvMode,
	EnvIncludeGroups, EnvExcludeGroups}

// readProxy reads the settings that only the proxy container defines, as in Istio: user and group, DNS capture and
// drop-invalid. Other settings read its environment if there is no annotation: see setting.variable.
func (s *Spec) readProxy(pod Pod, proxy Container) error {
	uid, err := containerID("runAsUser", proxy.RunAsUser, pod.RunAsUser)
	if err != nil {
		return err
	}
	gid, err := containerID("runAsGroup", proxy.RunAsGroup, pod.RunAsGroup)
	if err != nil {
		return err
	}
	// For root (Istio's injector runs a TPROXY sidecar as root) the default remains: uid 0 is never exempt, and the
	// group exempts the sidecar.
	if uid != 0 {
		s.ProxyUID = uid
	}
	if gid != 0 {
		s.ProxyGID = gid
	}
	s.DNSCapture = envBool(proxy, EnvDNSCapture, s.DNSCapture)
	s.DropInvalid = envBool(proxy, EnvInvalidDrop, envBool(proxy, EnvDropInvalid, s.DropInvalid))
	return nil
}

// DualStack reports whether the sidecar listens in both IP families. known is false if the pod's containers are
// unknown, or if the variable has no literal value.
func (p Pod) DualStack() (dual, known bool) {
	proxy := p.proxy()
	if proxy == nil || slices.Contains(proxy.Unresolved, EnvDualStack) {
		return false, false
	}
	return envBool(*proxy, EnvDualStack, false), true
}

// mode returns the interception mode of the pod, or else of its sidecar, or else of the operator. known is false if the
// agent may know of a sidecar with another mode than the operator's.
func (p *Pod) mode(policy *Policy) (mode Mode, known bool) {
	if text, present := p.Annotations[annotation.InterceptionMode]; present {
		return Mode(text), true
	}
	if proxy := p.proxy(); proxy != nil {
		if text, present := proxy.Env[EnvMode]; present {
			return Mode(text), true
		}
	}
	return policy.Redirect.Mode, p.Complete || !policy.Agent
}

// containerID returns the container's ID, or else the pod's, or else 0.
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

// envBool reads a boolean as Istio's CNI plugin does: an absent variable has the default, an invalid value is false.
func envBool(c Container, name string, unset bool) bool {
	text, present := c.Env[name]
	if !present {
		return unset
	}
	parsed, err := strconv.ParseBool(text)
	return err == nil && parsed
}
