package redirect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/annotation"
)

// Spec is the complete settings of one pod's redirection: everything that the rules depend on. Its JSON form is the
// `redirect` object of the CNI configuration.
type Spec struct {
	Mode                     Mode
	OutboundPort             Port // where the sidecar receives outbound TCP
	InboundPort              Port // where it receives inbound TCP
	ProxyUID                 ID   // never 0: root is never exempt
	ProxyGID                 ID   // 0: no group is exempt
	IncludeOutboundIPRanges  Prefixes
	ExcludeOutboundIPRanges  Prefixes
	IncludeInboundPorts      Ports
	ExcludeInboundPorts      Ports // used only if IncludeInboundPorts is all
	IncludeOutboundPorts     Ports
	ExcludeOutboundPorts     Ports // TCP and UDP
	ExcludeInterfaces        Interfaces
	RerouteVirtualInterfaces Interfaces
	DNSCapture               bool
	DNSPort                  Port
	DropInvalid              bool
	IncludeOutboundGroups    Groups // groups whose outbound traffic is captured
	ExcludeOutboundGroups    Groups // used only if IncludeOutboundGroups is all
	Families                 Captured
}

// proxyOwnPorts are ports of the sidecar itself that peers call directly: merged metrics, health, and Envoy's metrics.
// Istio always excludes them.
var proxyOwnPorts = []uint16{15020, 15021, 15090}

// hbonePort is the port of HBONE tunnels. The sidecar listens on it itself, so it is never captured.
const hbonePort = 15008

// DefaultSpec returns Istio's defaults.
func DefaultSpec() Spec {
	return Spec{
		Mode: ModeRedirect, OutboundPort: 15001, InboundPort: 15006, ProxyUID: 1337, ProxyGID: 1337,
		IncludeOutboundIPRanges: AllPrefixes(), IncludeInboundPorts: AllPorts(),
		ExcludeInboundPorts: PortsOf(proxyOwnPorts...), DNSPort: 15053,
		IncludeOutboundGroups: AllGroups(), Families: CapturedAll,
	}
}

// kind is the JSON type of a setting.
type kind int

const (
	text kind = iota
	number
	boolean
)

var kindNames = [...]string{text: "a JSON string", number: "a JSON number", boolean: "true or false"}

// Texts that say what is valid, one for each type.
const (
	validPort           = "a port, 1 to 65535"
	validUID            = "a user ID, 1 to 4294967294 (0, root, is never exempt)"
	validGID            = "a group ID, 1 to 4294967294, or 0 to exempt no group"
	validMode           = "REDIRECT, TPROXY or NONE"
	validPrefixes       = `"*" or a comma-separated list of prefixes such as 10.0.0.0/8,fd00::/8, without spaces`
	validExcludes       = "a comma-separated list of prefixes such as 10.0.0.0/8,fd00::/8, without spaces"
	validPorts          = `"*" or a comma-separated list of ports 0 to 65535 and of ranges such as 8000-8100`
	validPortList       = "a comma-separated list of ports 0 to 65535 and of ranges such as 8000-8100"
	validInterfaceNames = "a comma-separated list of interface names of at most 15 bytes out of letters, digits and " +
		"._-:@, or of prefixes of names such as br-*"
	validGroups    = `"*" or a comma-separated list of group IDs 0 to 4294967294`
	validGroupList = "a comma-separated list of group IDs 0 to 4294967294"
	validBool      = "true or false"
	validFamilies  = "all or proxy"
)

// setting is one setting: where it is read from, what is valid, and its only parser and printer.
type setting struct {
	name        string   // the key in the `redirect` object
	annotations []string // the first that the pod has counts
	variable    string   // of the proxy container, read if there is no annotation
	kind        kind
	valid       string
	parse       func(*Spec, string) error
	print       func(*Spec) any
}

// value returns a setting for one field of Spec.
func value[T any](name string, kind kind, valid string, field func(*Spec) *T, parse func(string) (T, error),
	print func(T) any, annotations ...string) setting {
	return setting{
		name: name, annotations: annotations, kind: kind, valid: valid,
		parse: func(s *Spec, text string) error {
			parsed, err := parse(text)
			if err == nil {
				*field(s) = parsed
			}
			return err
		},
		print: func(s *Spec) any { return print(*field(s)) },
	}
}

// orProxy returns the setting, also read from an environment variable of the proxy container.
func (s setting) orProxy(variable string) setting {
	s.variable = variable
	return s
}

func asIs[T any](v T) any              { return v }
func asString[T fmt.Stringer](v T) any { return v.String() }
func port(s func(*Spec) *Port, name string, annotations ...string) setting {
	return value(name, number, validPort, s, ParsePort, asIs[Port], annotations...)
}

// settings lists every setting in the order of the documentation.
var settings = []setting{
	value("mode", text, validMode, func(s *Spec) *Mode { return &s.Mode }, ParseMode, asIs[Mode],
		annotation.InterceptionMode).orProxy(EnvMode),
	port(func(s *Spec) *Port { return &s.OutboundPort }, "outboundPort", annotation.EnvoyPort),
	port(func(s *Spec) *Port { return &s.InboundPort }, "inboundPort"),
	value("proxyUID", number, validUID, func(s *Spec) *ID { return &s.ProxyUID }, parseProxyUID, asIs[ID],
		annotation.EnvoyUserID),
	value("proxyGID", number, validGID, func(s *Spec) *ID { return &s.ProxyGID }, ParseID, asIs[ID],
		annotation.EnvoyGroupID),
	value("includeOutboundIPRanges", text, validPrefixes, func(s *Spec) *Prefixes { return &s.IncludeOutboundIPRanges },
		ParsePrefixes, asString[Prefixes], annotation.IncludeOutboundIPRanges),
	value("excludeOutboundIPRanges", text, validExcludes, func(s *Spec) *Prefixes { return &s.ExcludeOutboundIPRanges },
		listOnly(ParsePrefixes), asString[Prefixes], annotation.ExcludeOutboundIPRanges),
	value("includeInboundPorts", text, validPorts, func(s *Spec) *Ports { return &s.IncludeInboundPorts },
		ParsePorts, asString[Ports], annotation.OwnIncludeInboundPorts, annotation.IncludeInboundPorts),
	value("excludeInboundPorts", text, validPortList, func(s *Spec) *Ports { return &s.ExcludeInboundPorts },
		parseExcludeInbound, asString[Ports], annotation.OwnExcludeInboundPorts, annotation.ExcludeInboundPorts),
	value("includeOutboundPorts", text, validPorts, func(s *Spec) *Ports { return &s.IncludeOutboundPorts },
		ParsePorts, asString[Ports], annotation.OwnIncludeOutboundPorts, annotation.IncludeOutboundPorts),
	value("excludeOutboundPorts", text, validPortList, func(s *Spec) *Ports { return &s.ExcludeOutboundPorts },
		listOnly(ParsePorts), asString[Ports], annotation.OwnExcludeOutboundPorts, annotation.ExcludeOutboundPorts),
	value("excludeInterfaces", text, validInterfaceNames, func(s *Spec) *Interfaces { return &s.ExcludeInterfaces },
		ParseInterfaces, asString[Interfaces], annotation.OwnExcludeInterfaces, annotation.ExcludeInterfaces),
	value("rerouteVirtualInterfaces", text, validInterfaceNames,
		func(s *Spec) *Interfaces { return &s.RerouteVirtualInterfaces },
		ParseInterfaces, asString[Interfaces], annotation.OwnRerouteVirtualInterfaces,
		annotation.RerouteVirtualInterfaces, annotation.KubevirtInterfaces),
	value("dnsCapture", boolean, validBool, func(s *Spec) *bool { return &s.DNSCapture }, parseBool, asIs[bool]),
	port(func(s *Spec) *Port { return &s.DNSPort }, "dnsPort"),
	value("dropInvalid", boolean, validBool, func(s *Spec) *bool { return &s.DropInvalid }, parseBool, asIs[bool]),
	value("includeOutboundOwnerGroups", text, validGroups, func(s *Spec) *Groups { return &s.IncludeOutboundGroups },
		ParseGroups, asString[Groups], annotation.OwnIncludeOutboundOwnerGroups).orProxy(EnvIncludeGroups),
	value("excludeOutboundOwnerGroups", text, validGroupList, func(s *Spec) *Groups { return &s.ExcludeOutboundGroups },
		listOnly(ParseGroups), asString[Groups], annotation.OwnExcludeOutboundOwnerGroups).orProxy(EnvExcludeGroups),
	value("families", text, validFamilies, func(s *Spec) *Captured { return &s.Families }, ParseCaptured, asIs[Captured]),
}

func parseProxyUID(text string) (ID, error) {
	id, err := ParseID(text)
	if err == nil && id == 0 {
		err = fmt.Errorf("root would bypass the sidecar")
	}
	return id, err
}

func parseExcludeInbound(text string) (Ports, error) {
	ports, err := listOnly(ParsePorts)(text)
	return ports.union(proxyOwnPorts...), err
}

func parseBool(text string) (bool, error) {
	switch text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("not a boolean")
}

// listOnly rejects `*` in lists in which Istio's validation accepts it and iptables then fails, or in which it would
// disable the redirection.
func listOnly[T interface{ All() bool }](parse func(string) (T, error)) func(string) (T, error) {
	return func(text string) (T, error) {
		parsed, err := parse(text)
		if err == nil && parsed.All() {
			var none T
			return none, fmt.Errorf("%q is not allowed here", wildcard)
		}
		return parsed, err
	}
}

// ParseSpec parses the `redirect` object of the CNI configuration. A key that is absent or null has its default, and
// empty input is an empty object. An unknown key is an error, because a misspelt one would silently change what is
// captured. IsInvalid holds for the error.
func ParseSpec(raw []byte) (Spec, error) {
	spec := DefaultSpec()
	if len(bytes.TrimSpace(raw)) == 0 {
		return spec, nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return Spec{}, invalid.Text("redirect", string(raw), "not a JSON object", "an object of settings")
	}
	for _, s := range settings {
		raw, present := values[s.name]
		delete(values, s.name)
		if !present || string(raw) == "null" {
			continue
		}
		if err := s.fromJSON(&spec, raw); err != nil {
			return Spec{}, err
		}
	}
	if len(values) > 0 {
		return Spec{}, unknownSetting(values)
	}
	return spec, nil
}

func (s setting) fromJSON(spec *Spec, raw json.RawMessage) error {
	key, literal := "redirect."+s.name, string(raw)
	if s.kind == text {
		if err := json.Unmarshal(raw, &literal); err != nil {
			return invalid.Text(key, string(raw), "not "+kindNames[s.kind], s.valid)
		}
	} else if c := literal[0]; (c >= '0' && c <= '9' || c == '-') != (s.kind == number) || c == '"' {
		return invalid.Text(key, literal, "not "+kindNames[s.kind], s.valid)
	}
	if err := s.parse(spec, literal); err != nil {
		return invalid.Text(key, literal, err.Error(), s.valid)
	}
	return nil
}

func unknownSetting(values map[string]json.RawMessage) error {
	var unknown, known []string
	for name := range values {
		unknown = append(unknown, name)
	}
	slices.Sort(unknown)
	for _, s := range settings {
		known = append(known, s.name)
	}
	return invalid.Text("redirect", unknown[0], "unknown key", strings.Join(known, ", "))
}

// MarshalJSON returns the form that ParseSpec parses, with every key.
func (s Spec) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, setting := range settings {
		printed, err := json.Marshal(setting.print(&s))
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, "%q:%s", setting.name, printed)
	}
	return append(out, '}'), nil
}

// withPod returns the settings, changed by the pod: by its annotations, and by what Istio reads from the proxy
// container, which is nil if it is unknown. The 2018 controller's annotations take precedence over the container,
// because somebody wrote them for this purpose.
func (s Spec) withPod(pod Pod, proxy *Container) (Spec, error) {
	if dual, known := pod.DualStack(); s.Families == CapturedProxy && (dual || !known) {
		s.Families = CapturedAll
	}
	if proxy != nil {
		if err := s.readProxy(pod, *proxy); err != nil {
			return Spec{}, err
		}
	}
	for _, setting := range settings {
		where, text, said := setting.ofPod(pod, proxy)
		if !said {
			continue
		}
		if err := setting.parse(&s, text); err != nil {
			return Spec{}, invalid.Text(where, text, err.Error(), setting.valid)
		}
	}
	return s, nil
}

// ofPod returns the pod's value of the setting, and where it was found.
func (s setting) ofPod(pod Pod, proxy *Container) (where, text string, said bool) {
	for _, key := range s.annotations {
		if text, said = pod.Annotations[key]; said {
			return "annotation " + key, text, true
		}
	}
	if s.variable != "" && proxy != nil {
		text, said = proxy.Env[s.variable]
	}
	return "container " + ProxyContainer + " env " + s.variable, text, said
}
