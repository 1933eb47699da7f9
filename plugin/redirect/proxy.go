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
func (s *Spec) readProxy(pod Pod, proxy Container, note *notes) error {
	uid, from, err := containerID("runAsUser", proxy.RunAsUser, pod.RunAsUser)
	if err != nil {
		return err
	}
	// Root (Istio's injector runs a TPROXY sidecar so) keeps the default: uid 0 is never exempt, the gid exempts the
	// proxy.
	if uid != 0 {
		s.ProxyUID = uid
		note.found("proxyUID", from)
	}
	gid, from, err := containerID("runAsGroup", proxy.RunAsGroup, pod.RunAsGroup)
	if err != nil {
		return err
	}
	if gid != 0 {
		s.ProxyGID = gid
		note.found("proxyGID", from)
	}
	readBool(&s.DNSCapture, "dnsCapture", proxy, EnvDNSCapture, note)
	readBool(&s.DropInvalid, "dropInvalid", proxy, EnvDropInvalid, note)
	readBool(&s.DropInvalid, "dropInvalid", proxy, EnvInvalidDrop, note)
	return nil
}

// DualStack reports whether the sidecar says that it listens in both IP families. That is not known where the pod's
// containers are not, or where the variable's value stands outside the pod.
func (p Pod) DualStack() (dual, known bool) {
	proxy := p.proxy()
	if proxy == nil || slices.Contains(proxy.Unresolved, EnvDualStack) {
		return false, false
	}
	readBool(&dual, "", *proxy, EnvDualStack, nil)
	return dual, true
}

// mode returns the interception mode: what the pod says, else its sidecar, else the operator. It is not known where the
// agent would tell of a sidecar that may say something else than the operator.
func (p *Pod) mode(policy Policy) (mode Mode, known bool, from Origin) {
	if text, present := p.Annotations[annotation.InterceptionMode]; present {
		return Mode(text), true, Origin{Kind: OfAnnotation, Name: annotation.InterceptionMode, Value: text}
	}
	if from, present := p.proxy().variable(EnvMode); present {
		return Mode(from.Value), true, from
	}
	mode = policy.Redirect.Mode
	return mode, p.Complete || !policy.Agent, Origin{Kind: OfConfig, Name: "redirect.mode", Value: string(mode)}
}

// containerID returns the container's ID, else the pod's, else 0.
func containerID(field string, own, pods *int64) (id ID, from Origin, err error) {
	from = Origin{Kind: OfContainer, Of: ProxyContainer, Name: "securityContext." + field}
	number := own
	if number == nil {
		number, from = pods, Origin{Kind: OfPod, Name: from.Name}
	}
	if number == nil {
		return 0, from, nil
	}
	from.Value = strconv.FormatInt(*number, 10)
	id, err = ParseID(from.Value)
	if err != nil {
		err = invalid.Text("container "+ProxyContainer+" securityContext."+field, from.Value, err.Error(),
			"0 to 4294967294")
	}
	return id, from, err
}

// readBool reads a boolean as Istio's plugin does: absent keeps what is there, unreadable is false.
func readBool(target *bool, setting string, c Container, name string, note *notes) {
	if from, present := c.variable(name); present {
		parsed, err := strconv.ParseBool(from.Value)
		*target = err == nil && parsed
		note.found(setting, from)
	}
}
