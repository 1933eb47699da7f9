package plugin

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// badInput is one invalid input and what the error has to contain.
type badInput struct {
	change            func(*invocation)
	code              uint
	key, value, valid string
	noDel             bool // DEL fails too: the input does not say which attachment it is about
}

func (b badInput) name() string { return fmt.Sprintf("%s=%.24s", b.key, b.value) }

// number is a JSON number, written exactly as given.
func number(text string) json.RawMessage { return json.RawMessage(text) }

// shown is how an error shows a value of the configuration: a huge one is cut after its start.
func shown(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text[:min(len(text), 200)])
}

// badInputs returns all cases.
func badInputs() (all []badInput) {
	all = append(all, badStdin()...)
	all = append(all, badEnvironment()...)
	for _, wrong := range wrongKeys {
		for _, value := range wrong.values {
			change := func(i *invocation) { i.conf[wrong.key] = value }
			all = append(all, badInput{change, 7, wrong.key, shown(value), wrong.valid, false})
		}
	}
	for _, wrong := range wrongSettings {
		for _, value := range wrong.values {
			change := func(i *invocation) { i.conf["redirect"] = object{wrong.key: value} }
			text := shown(value)
			if s, isText := value.(string); !isText || !wrong.text {
				text = fmt.Sprintf("%.40q", text)
			} else {
				text = fmt.Sprintf("%.40q", s)
			}
			all = append(all, badInput{change, 7, "redirect." + wrong.key + ":", strings.TrimSuffix(text, `"`), wrong.valid,
				false})
		}
	}
	for _, wrong := range wrongAnnotations {
		change := func(i *invocation) { i.annotate(wrong.key, wrong.value) }
		value := strings.TrimSuffix(fmt.Sprintf("%.40q", wrong.value), `"`)
		all = append(all, badInput{change, codeAnnotation, "annotation " + wrong.key, value, wrong.valid, false})
	}
	return append(all, badOthers()...)
}

// wrongKeys are invalid values of top-level keys of the configuration.
var wrongKeys = []struct {
	key    string
	values []any
	valid  string
}{
	{"stateDir", []any{5, true, []any{}, object{}, "", "relative/path"}, "an absolute path"},
	{"agentSocket", []any{5, false, []any{""}, "agent.sock", "@abstract", "/" + strings.Repeat("a", 107)},
		"an absolute path of at most 107 bytes"},
	{"agentTimeout", []any{8, true, "", "8", "-1s", "0s", "61s", "1us", "soon", "9999999h"}, "a duration from 1ms to 1m"},
	{"statusRequiresAgent", []any{"true", 1, []any{}}, "true or false"},
	{"backend", []any{5, []any{"nftables"}, "", "ebpf", "NFTABLES", " auto"}, "auto, nftables"},
	{"selection", []any{5, object{}, "", "all", "Injected"}, "injected or annotated"},
	{"sharedProxyUser", []any{5, false, "", "allow", "Warn"}, "warn or refuse"},
	{"excludeNamespaces", []any{5, "kube-system", object{"a": 1}, []any{5}}, "a list of namespace names or patterns"},
	{"logLevel", []any{5, "", "loud", "trace", "fatal", "panic"}, "debug, info, warning or error"},
	{"runtimeConfig", []any{5, "x", []any{}}, "an object"},
	{"redirect", []any{true, []any{}}, "an object of settings"},
	{"cni.dev/valid-attachments", []any{5, "x", object{}, []any{5}}, "a list of {containerID, ifname}"},
	{"prevResult", []any{5, "x", []any{}, true, object{"cniVersion": 5}}, "a CNI result object"},
}

// wrongSettings are invalid values of the keys of `redirect`.
var wrongSettings = []struct {
	key    string
	text   bool // a string has the right type
	values []any
	valid  string
}{
	{"mode", true, []any{5, true, "", "redirect", "REDIRECT ", "DNAT"}, "REDIRECT, TPROXY or NONE"},
	{"outboundPort", false, []any{"15001", 0, -1, 65536, 70000, 1.5, true, number("1e4"), number("99999999999999999999"),
		[]any{1}}, "a port, 1 to 65535"},
	{"inboundPort", false, []any{"x", 0, 70000, object{}}, "a port, 1 to 65535"},
	{"dnsPort", false, []any{"53", 0, 65536}, "a port, 1 to 65535"},
	{"proxyUID", false, []any{0, -1, 4294967295, number("4294967296"), "1337", 1.5}, "a user ID, 1 to 4294967294"},
	{"proxyGID", false, []any{-1, 4294967295, number("4294967296"), "x", false}, "a group ID, 1 to 4294967294"},
	{"includeOutboundIPRanges", true, []any{5, []any{"10.0.0.0/8"}, "10.0.0.1", "10.0.0.0/33", "fd00::/129",
		"10.0.0.0/8,",
		"10.0.0.0/8, 10.1.0.0/16",
		"*,10.0.0.0/8", "example.org", "::1%lo/128", strings.Repeat("10.0.0.0/8,", 20000)},
		`"*" or a comma-separated list of prefixes`},
	{"excludeOutboundIPRanges", true, []any{5, "*", "10.0.0.1", "10.0.0.0/33"}, "a comma-separated list of prefixes"},
	{"includeInboundPorts", true, []any{80, "80,,90", "90-80", "65536", "-1", "+80", "*,80", "http",
		strings.Repeat("x", 1<<20)}, `"*" or a comma-separated list of ports`},
	{"excludeInboundPorts", true, []any{[]any{80}, "*", "80,,90", "80;90"}, "a comma-separated list of ports"},
	{"includeOutboundPorts", true, []any{true, "80-", "80,"}, `"*" or a comma-separated list of ports`},
	{"excludeOutboundPorts", true, []any{object{}, "*", "0x50"}, "a comma-separated list of ports"},
	{"excludeInterfaces", true, []any{5, "sixteen-bytes-xx", "eth0;reboot", "eth0,,eth1", "eth0 eth1", "..", "eth+",
		"a/b",
		"é"}, "names of at most 15 bytes"},
	{"rerouteVirtualInterfaces", true, []any{5, "sixteen-bytes-xx", "$(reboot)", "a\nb"}, "names of at most 15 bytes"},
	{"includeOutboundOwnerGroups", true, []any{5, "java", "1,,2", "4294967295"}, "list of group IDs"},
	{"excludeOutboundOwnerGroups", true, []any{[]any{5}, "*", "root"}, "a comma-separated list of group IDs"},
	{"dnsCapture", false, []any{"true", 1, []any{}}, "true or false"},
	{"dropInvalid", false, []any{"false", 0}, "true or false"},
	{"families", true, []any{4, "both", "IPv6", ""}, "all or proxy"},
}

// wrongAnnotations are annotations for which a mesh pod is refused.
var wrongAnnotations = []struct{ key, value, valid string }{
	{annotation.InterceptionMode, "redirect", "REDIRECT, TPROXY or NONE"},
	{annotation.InterceptionMode, "", "REDIRECT, TPROXY or NONE"},
	{annotation.IncludeOutboundIPRanges, "10.0.0.0/33", `"*" or a comma-separated list of prefixes`},
	{annotation.IncludeOutboundIPRanges, "10.0.0.1", `"*" or a comma-separated list of prefixes`},
	{annotation.ExcludeOutboundIPRanges, "*", "a comma-separated list of prefixes"},
	{annotation.ExcludeOutboundIPRanges, "fd00::/8,x", "a comma-separated list of prefixes"},
	{annotation.IncludeInboundPorts, "80,,90", `"*" or a comma-separated list of ports`},
	{annotation.ExcludeInboundPorts, "90-80", "a comma-separated list of ports"},
	{annotation.ExcludeInboundPorts, "*", "a comma-separated list of ports"},
	{annotation.ExcludeInboundPorts, strings.Repeat("9", 300<<10), "a comma-separated list of ports"},
	{annotation.IncludeOutboundPorts, "70000", `"*" or a comma-separated list of ports`},
	{annotation.ExcludeOutboundPorts, "*", "a comma-separated list of ports"},
	{annotation.ExcludeInterfaces, "net1;reboot", "names of at most 15 bytes"},
	{annotation.ExcludeInterfaces, "sixteen-bytes-xx", "names of at most 15 bytes"},
	{annotation.KubevirtInterfaces, "a,,b", "names of at most 15 bytes"},
	{annotation.RerouteVirtualInterfaces, "`reboot`", "names of at most 15 bytes"},
	{annotation.OwnExcludeInboundPorts, "1-70000", "a comma-separated list of ports"},
	{annotation.OwnExcludeInterfaces, "a,,b", "names of at most 15 bytes"},
	{annotation.OwnExcludeOutboundOwnerGroups, "java", "list of group IDs"},
	{annotation.EnvoyPort, "70000", "a port, 1 to 65535"},
	{annotation.EnvoyPort, "", "a port, 1 to 65535"},
	{annotation.EnvoyUserID, "0", "a user ID, 1 to 4294967294"},
	{annotation.EnvoyUserID, "4294967296", "a user ID, 1 to 4294967294"},
	{annotation.EnvoyUserID, "envoy", "a user ID, 1 to 4294967294"},
	{annotation.EnvoyGroupID, "-1", "a group ID, 1 to 4294967294"},
	{annotation.Initialize, "maybe", "true or false"},
	{annotation.Initialize, "", "true or false"},
}

// badStdin are inputs that are not a network configuration. DEL succeeds with them: the runtime would retry it forever.
func badStdin() (all []badInput) {
	for text, message := range map[string]string{
		"": "unexpected end", " \n": "unexpected end", "\x00": "invalid character", "5": "number", `"x"`: "string",
		"[]": "array", "{": "unexpected end",
		`{"name":"podnet",}`: "invalid character", `{"name":"podnet"} {}`: "after top-level value",
		"name: podnet": "invalid character",
		`{"name":5}`:   "name", `{"name":"podnet","cniVersion":5}`: "cniVersion",
		`{"name":"podnet","cniVersion":"1.1.0","x":` + strings.Repeat("[", 20000): "exceeded max depth",
	} {
		all = append(all, badInput{func(i *invocation) { i.stdin = &text }, 6, "network configuration", message,
			"a JSON object with the strings cniVersion, name and type", false})
	}
	for _, name := range []any{nil, "", "a/b", "../x", "-a", "a b", strings.Repeat("x", 1<<20) + "/"} {
		value, _ := name.(string)
		all = append(all, badInput{func(i *invocation) { i.conf["name"] = name }, 7, "name: ", value[:min(len(value), 200)],
			"letters, digits", false})
	}
	for _, version := range []string{"9.9.9", "0.0.9", "0.5.0", "1.2.0", "v1.0.0", "1", strings.Repeat("1", 1<<20)} {
		shown := version[:min(len(version), 200)]
		all = append(all, badInput{func(i *invocation) { i.conf["cniVersion"] = version }, 1, "cniVersion: ", shown,
			"0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0", false})
	}
	return all
}

// badEnvironment are invalid CNI_ variables.
func badEnvironment() (all []badInput) {
	add := func(code uint, name, valid string, noDel bool, values ...string) {
		for _, value := range values {
			change := func(i *invocation) { i.env[name] = value }
			all = append(all, badInput{change, code, name, value[:min(len(value), 200)], valid, noDel})
		}
	}
	add(4, "CNI_COMMAND", "ADD, CHECK, DEL, GC, STATUS or VERSION", true, "", "add", "UPDATE", "ADD ")
	add(4, "CNI_CONTAINERID", "letters, digits and _.-", true, "a b", strings.Repeat("a", 100)+"/", "../../x", "-a", "é",
		"a/b")
	add(4, "CNI_CONTAINERID", "missing", true, "")
	add(4, "CNI_IFNAME", "missing", true, "")
	add(4, "CNI_IFNAME", "at most 15 bytes", true, "sixteen-bytes-xx", "a/b", "a:b", "a b", "..", ".")
	add(4, "CNI_PATH", "missing", true, "")
	add(4, "CNI_NETNS", "missing", false, "")
	add(4, "CNI_ARGS", "KEY=VALUE;KEY=VALUE", false, "K8S_POD_NAME", podArgs+";x", "x", strings.Repeat("x", 100<<10))
	add(codeNetNS, "CNI_NETNS", "the path of a pod's network namespace", false, "/nonexistent", "/dev/null", "/proc",
		"/proc/self/ns",
		"/proc/self/ns/net", "/proc/thread-self/ns/net", "/proc/self/ns/mnt", "/proc/self/ns/user", "relative",
		"/etc/passwd", "/"+strings.Repeat("x", 5000))
	return all
}

// badOthers are cases that the functions above do not generate.
func badOthers() []badInput {
	capability := func(value any) func(*invocation) {
		return func(i *invocation) { i.conf["runtimeConfig"] = object{annotationsCapability: value} }
	}
	set := func(key string, value any) func(*invocation) { return func(i *invocation) { i.conf[key] = value } }
	const capabilityKey = "runtimeConfig." + annotationsCapability
	return []badInput{
		{capability(5), 7, capabilityKey, "5", "an object of strings", false},
		{capability("x"), 7, capabilityKey, `"x"`, "an object of strings", false},
		{capability(object{"a": 5}), 7, capabilityKey, `{"a":5}`, "an object of strings", false},
		{capability(object{"a": object{}}), 7, capabilityKey, `{"a":{}}`, "an object of strings", false},
		{set("excludeNamespaces", []any{"a", "["}), 7, "excludeNamespaces[1]", `"["`, "a namespace name", false},
		{set("excludeNamespaces", []any{""}), 7, "excludeNamespaces[0]", `""`, "a namespace name", false},
		{set("redirect", object{"outboundPrt": 1}), 7, "redirect", `"outboundPrt"`, "mode, outboundPort, inboundPort",
			false},
		{set("redirect", object{"OutboundPort": 1}), 7, "redirect", `"OutboundPort"`, "mode, outboundPort, inboundPort",
			false},
		{set("prevResult", object{"cniVersion": "9.9.9"}), 7, "prevResult.cniVersion", `"9.9.9"`, "normally 1.1.0", false},
		{set("prevResult", object{"cniVersion": "1.0.0", "ips": "x"}), 7, "prevResult.cniVersion", `"1.0.0"`,
			"normally 1.1.0", false},
		// An error that occurs only after the rules are written.
		{set("stateDir", "/dev/null"), codeRecord, "writing the record", "/dev/null", "not a directory", false},
		{set("stateDir", "/proc/state"), codeRecord, "writing the record", "/proc/state", "no such file", false},
		{func(i *invocation) { i.env["CNI_CONTAINERID"] = strings.Repeat("a", 300) }, codeRecord, "container ID", "aaaa",
			"a name of 310 bytes", false},
		{func(i *invocation) { i.env["CNI_IFNAME"] = "eth\x01" }, codeRecord, "interface name", `"eth\x01"`,
			"control characters", false},
	}
}
