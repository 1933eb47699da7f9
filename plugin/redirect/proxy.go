package redirect

import (
	"slices"
	"strconv"

	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/annotation"
)

// Environment of the proxy container that is read, as by Istio's own init container or plugin: an injector writes all
// of a mesh's or a pod's proxyMetadata there.
const (
	EnvDNSCapture   = "ISTIO_META_DNS_CAPTURE"
	EnvDropInvalid  = "DROP_INVALID" // the init container's name of the next one, which wins, as there
	EnvInvalidDrop  = "INVALID_DROP"
	EnvDisableEnvoy = "DISABLE_ENVOY"
	EnvDualStack    = "ISTIO_DUAL_STACK"             // the sidecar listens in both families
	EnvMode         = "ISTIO_META_INTERCEPTION_MODE" // by which the sidecar itself knows how it gets its traffic
	// Whose outbound traffic is captured, by group.
	EnvIncludeGroups = "ISTIO_OUTBOUND_OWNER_GROUPS"
	EnvExcludeGroups = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"
)

// ProxyVariables lists every variable that is read; nothing else of a container's environment need be kept.
var ProxyVariables = []string{EnvDNSCapture, EnvDropInvalid, EnvInvalidDrop, EnvDisableEnvoy, EnvDualStack, EnvMode,
	EnvIncludeGroups, EnvExcludeGroups}

// readProxy takes what Istio takes from the proxy container and no annotation overrules: its user and group, DNS
// capture and drop-invalid. What else of its environment is read is a setting's variable.
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
	s.DropInvalid = envBool(proxy, EnvInvalidDrop, envBool(proxy, EnvDropInvalid, s.DropInvalid))
	return nil
}

// DualStack reports whether the sidecar says that it listens in both IP families. That is not known where the pod's
// containers are not, or where the variable's value stands outside the pod.
func (p Pod) DualStack() (dual, known bool) {
	proxy := p.proxy()
	if proxy == nil || slices.Contains(proxy.Unresolved, EnvDualStack) {
		return false, false
	}
	return envBool(*proxy, EnvDualStack, false), true
}

// mode returns the interception mode: what the pod says, else its sidecar, else the operator. It is not known where the
// agent would tell of a sidecar that may say something else than the operator.
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
