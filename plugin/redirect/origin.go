package redirect

import (
	"strconv"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// OriginKind is the kind of source in which an answer or a setting was found.
type OriginKind string

// The kinds.
const (
	OfAnnotation OriginKind = "annotation"           // an annotation of the pod
	OfLabel      OriginKind = "label"                // a label of the pod
	OfNamespace  OriginKind = "namespace-annotation" // an annotation of the pod's namespace
	OfContainer  OriginKind = "container"            // a field of a container
	OfVariable   OriginKind = "variable"             // an environment variable of a container
	OfPod        OriginKind = "pod"                  // a field of the pod
	OfConfig     OriginKind = "config"               // the plugin's entry, or a default
	OfRuntime    OriginKind = "runtime"              // what the container runtime passes or does not pass
)

// Origin says where an answer or a setting was found.
type Origin struct {
	Kind  OriginKind
	Of    string // the name of the container or namespace
	Name  string // the name of the annotation, label, variable, field or key
	Value string // the value, if it is known
}

// origin returns where the answer to the question was found, or zero if it was found nowhere. The question must have
// been asked.
func (q *question) origin(c *inquiry) Origin {
	switch q.reason {
	case ReasonNotKubernetes:
		return Origin{Kind: OfRuntime, Name: "CNI_ARGS"}
	case ReasonNamespaceExcluded:
		return Origin{Kind: OfConfig, Name: "excludeNamespaces"}
	case ReasonOpenShiftDeployer:
		return c.pod.ofAnnotation(annotation.OpenShiftDeployer)
	case ReasonOpenShiftBuild:
		return c.pod.ofAnnotation(annotation.OpenShiftBuild)
	case ReasonOptedOut:
		return c.ofOptIn()
	case ReasonInjectDisabled:
		return c.ofInject()
	case ReasonAmbient:
		return c.pod.ofAnnotation(annotation.AmbientRedirection)
	case ReasonOwnInit:
		return c.ofInit()
	case ReasonEnvoyDisabled:
		return c.proxy.ofVariable(EnvDisableEnvoy)
	case ReasonProxyType:
		if c.proxy != nil && len(c.proxy.Args) >= 2 {
			return Origin{Kind: OfContainer, Of: ProxyContainer, Name: "args", Value: c.proxy.Args[1]}
		}
	case ReasonModeNone:
		return c.ofMode()
	case ReasonNotInjected:
		if c.own == yes {
			return c.ofOptIn()
		}
		return c.pod.ofAnnotation(annotation.SidecarStatus)
	case ReasonNotOptedIn:
		return c.ofOptIn()
	case ReasonNoProxy:
		if c.proxy != nil {
			return Origin{Kind: OfContainer, Of: ProxyContainer}
		}
	}
	return Origin{}
}

// ofOptIn returns the opt-in annotation of the pod, or else that of its namespace if the selection uses it.
func (c *inquiry) ofOptIn() (from Origin) {
	if from = c.pod.ofAnnotation(annotation.Initialize); from.Kind != "" || c.policy.Selection != SelectAnnotated {
		return from
	}
	if value, present := c.pod.NamespaceAnnotations[annotation.Initialize]; present {
		from = Origin{Kind: OfNamespace, Of: c.pod.Namespace, Name: annotation.Initialize, Value: value}
	}
	return from
}

// ofInject returns the label or annotation sidecar.istio.io/inject. The label takes precedence.
func (c *inquiry) ofInject() Origin {
	if label, present := c.pod.Labels[annotation.SidecarInject]; present {
		return Origin{Kind: OfLabel, Name: annotation.SidecarInject, Value: label}
	}
	return c.pod.ofAnnotation(annotation.SidecarInject)
}

func (c *inquiry) ofInit() (from Origin) {
	for _, init := range c.pod.InitContainers {
		if init.Name == InitContainer {
			from = Origin{Kind: OfContainer, Of: InitContainer, Name: "securityContext"}
			if init.NetAdmin {
				from.Value = "NET_ADMIN"
			}
		}
	}
	return from
}

func (c *inquiry) ofMode() Origin {
	if from, said := settings[0].origin(c.pod, c.proxy); said {
		return from
	}
	return Origin{Kind: OfConfig, Name: "redirect.mode", Value: string(c.policy.Redirect.Mode)}
}

// origin returns where the pod defines the setting, if it does.
func (s setting) origin(pod *Pod, proxy *Container) (from Origin, said bool) {
	for _, key := range s.annotations {
		if from = pod.ofAnnotation(key); from.Kind != "" {
			return from, true
		}
	}
	switch s.name {
	case "proxyUID":
		from = proxy.ofID("runAsUser", pod.RunAsUser, func(c *Container) *int64 { return c.RunAsUser })
	case "proxyGID":
		from = proxy.ofID("runAsGroup", pod.RunAsGroup, func(c *Container) *int64 { return c.RunAsGroup })
	case "dnsCapture":
		from = proxy.ofVariable(EnvDNSCapture)
	case "dropInvalid":
		if from = proxy.ofVariable(EnvInvalidDrop); from.Kind == "" {
			from = proxy.ofVariable(EnvDropInvalid)
		}
	default:
		if s.variable != "" {
			from = proxy.ofVariable(s.variable)
		}
	}
	return from, from.Kind != ""
}

// ofAnnotation returns the origin for the pod's annotation, or zero if it has none.
func (p *Pod) ofAnnotation(key string) (from Origin) {
	if value, present := p.Annotations[key]; present {
		from = Origin{Kind: OfAnnotation, Name: key, Value: value}
	}
	return from
}

// ofVariable returns the origin for an environment variable, or zero. The container may be nil.
func (c *Container) ofVariable(name string) (from Origin) {
	if c == nil {
		return from
	}
	if value, present := c.Env[name]; present {
		from = Origin{Kind: OfVariable, Of: c.Name, Name: name, Value: value}
	}
	return from
}

// ofID returns the origin of the container's ID, or else of the pod's. It is zero if there is none, or if the ID is 0:
// root is never exempt.
func (c *Container) ofID(field string, pods *int64, own func(*Container) *int64) (from Origin) {
	if c == nil {
		return from
	}
	field = "securityContext." + field
	id := own(c)
	from = Origin{Kind: OfContainer, Of: c.Name, Name: field}
	if id == nil {
		id, from = pods, Origin{Kind: OfPod, Name: field}
	}
	if id == nil || *id == 0 {
		return Origin{}
	}
	from.Value = strconv.FormatInt(*id, 10)
	return from
}
