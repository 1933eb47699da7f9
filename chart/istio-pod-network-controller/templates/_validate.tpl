{{- /* Each kind of value, with a text that says what is valid: a schema's error would only show a pattern. `each` is the pattern of an item in a list
with commas. `ordered`: the lower end of a range comes first. `highest` is the largest number. `star` allows * for all. `most` is the largest
number of bytes. The chart accepts only what plugin and agent accept: with an entry that the plugin rejects, no pod of the node would start. */ -}}
{{- define "kinds" -}}
{{- $number := "[0-9]+([.][0-9]+)?" -}}
{{- $unit := "(ms|s|m|h)" -}}
{{- $path := "(/[-A-Za-z0-9._+@]+)+" -}}
{{- $port := "([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])" -}}
{{- $ports := printf "^ *%s(-%s)? *$" $port $port -}}
{{- $name := "[-A-Za-z0-9._:@]" -}}
{{- $octet := "([0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])" -}}
{{- $v4 := printf "(%s[.]){3}%s/([0-9]|[12][0-9]|3[0-2])" $octet $octet -}}
{{- $v6 := "[0-9a-fA-F.:]*:[0-9a-fA-F.:]*/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8])" -}}
path:
  pattern: '^({{ $path }})?$'
  words: an absolute path out of letters, digits and ._+@-, without a slash at its end, or empty for that of kubernetesDistribution
stateDir:
  pattern: '^{{ $path }}$'
  most: 96 # the path of the socket in it may have 107 (unix(7))
  words: an absolute path of at most 96 bytes out of letters, digits and ._+@-, without a slash at its end
fullPath:
  pattern: '^{{ $path }}$'
  words: an absolute path out of letters, digits and ._+@-, without a slash at its end
duration:
  pattern: '^(0+{{ $unit }})*[1-9][0-9]*([.][0-9]+)?{{ $unit }}({{ $number }}{{ $unit }})*$'
  words: a duration of more than 0, such as 90s or 10m
interval:
  pattern: '^[1-9][0-9]*{{ $unit }}$'
  words: a duration, such as 30s
agentTimeout:
  pattern: '^(([1-9][0-9]{0,3}|[1-5][0-9]{4}|60000)ms|([1-9]|[1-5][0-9])([.][0-9]+)?s|0[.][0-9]{0,2}[1-9][0-9]*s|60s|1m)$'
  words: a duration from 1ms to 1m, such as 500ms or 8s
registry:
  pattern: '^([a-zA-Z0-9][-a-zA-Z0-9._]*(:[0-9]+)?(/[-a-z0-9._/]+)?)?$'
  words: a registry without a scheme, such as registry.example.com/mesh
repository:
  pattern: '^([a-zA-Z0-9][-a-zA-Z0-9.]*(:[0-9]+)?/)?[a-z0-9][-a-z0-9._]*(/[a-z0-9][-a-z0-9._]*)*$'
  words: the name of an image without its tag, such as mesh/istio-pod-network-agent
tag:
  pattern: '^([A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?$'
  words: the tag of an image
digest:
  pattern: '^(sha256:[0-9a-f]{64})?$'
  words: "sha256: and 64 hexadecimal digits"
runtime:
  pattern: '^([a-z-]+://[0-9][-A-Za-z0-9.+~]*)?$'
  words: a node's containerRuntimeVersion, such as containerd://2.1.4
primary:
  pattern: '^([a-zA-Z0-9][-a-zA-Z0-9_.]*)?$'
  words: the name of a network or of its file, out of letters, digits and ._-
address:
  pattern: '^([0-9.]+|\[[0-9a-fA-F:.]+\])?$'
  words: an IP address, one of IPv6 in brackets
taint:
  pattern: '^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$'
  words: the key of a taint, such as example.com/agent-not-ready
flag:
  pattern: '^--[a-z]'
  words: a flag of istio-pod-network-agent with its value
ranges:
  each: '^({{ $v4 }}|{{ $v6 }})$'
  star: true
  words: "* or prefixes such as 10.96.0.0/12,fd00::/8, without spaces"
prefixes:
  each: '^({{ $v4 }}|{{ $v6 }})$'
  words: prefixes such as 10.96.0.0/12,fd00::/8, without spaces
ports:
  each: '{{ $ports }}'
  ordered: true
  words: ports from 0 to 65535 and ranges, such as 80,8000-8100
allPorts:
  each: '{{ $ports }}'
  ordered: true
  star: true
  words: "* or ports from 0 to 65535 and ranges, such as 80,8000-8100"
interfaces:
  each: '^ *({{ $name }}{1,15}|{{ $name }}{1,14}[*]) *$'
  words: names of interfaces and prefixes of names, of at most 15 bytes each, such as net1,br-*
groups:
  each: '^ *[0-9]{1,10} *$'
  highest: 4294967294
  words: group IDs from 0 to 4294967294, such as 1338,2000
allGroups:
  each: '^ *[0-9]{1,10} *$'
  highest: 4294967294
  star: true
  words: "* or group IDs from 0 to 4294967294, such as 1338,2000"
pattern:
  pattern: '^([^\[\]\\]|\[\^?([a-z0-9](-[a-z0-9])?)+\])+$'
  words: the name of a namespace, in which * stands for any text, ? for one character, [a-z] for a class
namespace:
  pattern: '^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$'
  words: the name of a namespace
{{- end -}}

{{- /* The values to check, each with its kind. */ -}}
{{- define "checked" -}}
Namespace: namespace
image.registry: registry
image.repository: repository
image.tag: tag
image.digest: digest
pluginImage.repository: repository
pluginImage.tag: tag
pluginImage.digest: digest
cni.binDir: path
cni.confDir: path
cni.auxDir: path
cni.cacheDir: fullPath
cni.netnsDir: fullPath
cni.runtimeVersion: runtime
cni.primary: primary
includeIPRanges: ranges
excludeIPRanges: prefixes
excludeInboundPorts: ports
redirect.includeOutboundIPRanges: ranges
redirect.excludeOutboundIPRanges: prefixes
redirect.includeInboundPorts: allPorts
redirect.excludeInboundPorts: ports
redirect.includeOutboundPorts: allPorts
redirect.excludeOutboundPorts: ports
redirect.excludeInterfaces: interfaces
redirect.rerouteVirtualInterfaces: interfaces
redirect.includeOutboundOwnerGroups: allGroups
redirect.excludeOutboundOwnerGroups: groups
agentTimeout: agentTimeout
openshift.networkName: namespace
openshift.networkNamespace: namespace
test.namespace: namespace
stateDir: stateDir
agent.listenAddress: address
metrics.podMonitor.interval: interval
startupTaint.key: taint
uninstallTimeout: duration
{{- end -}}

{{- /* The values, objects before what is in them, that have no meaning when they are null. */ -}}
{{- define "needed" -}}
[kubernetesDistribution, image, image.repository, image.pullPolicy, pluginImage, pluginImage.repository, cni, cni.dropIn, cni.cacheDir, cni.netnsDir, openshift, openshift.mode, openshift.networkNamespace, openshift.auxFailOpen, injection, injection.replaceInit, repair, selection, sharedProxyUser,
backend, agentTimeout, statusRequiresAgent, pluginLogLevel, stateDir, agent, agent.port, agent.logLevel, agent.logFormat, agent.apiQPS,
agent.apiBurst, agent.updateStrategy, agent.terminationGracePeriodSeconds, metrics, metrics.service, metrics.podMonitor,
metrics.podMonitor.interval, metrics.prometheusRule, metrics.prometheusRule.runbookURL, metrics.dashboard, resourceQuota, resourceQuota.enabled, resourceQuota.pods, apiPriority, apiPriority.enabled, apiPriority.concurrencyShares, startupTaint, startupTaint.key,
admissionPolicy, admissionPolicy.enabled, namespace, namespace.create, hooks, test, rbac, uninstallTimeout, uninstall]
{{- end -}}

{{- /* Fails with the name of a value, what it is, and what is valid. (list $name $value $kind) */ -}}
{{- define "check" -}}
{{- $kind := index . 2 -}}
{{- $text := index . 1 | toString -}}
{{- $valid := le (len $text) (int ($kind.most | default 1000000)) -}}
{{- if $kind.pattern -}}
{{- $valid = and $valid (regexMatch $kind.pattern $text) -}}
{{- else if not (or (eq $text "") (and $kind.star (eq $text "*"))) -}}
{{- range $item := splitList "," $text -}}
{{- $valid = and $valid (regexMatch $kind.each $item) -}}
{{- $ends := splitList "-" (trim $item) -}}
{{- if $kind.ordered -}}{{- $valid = and $valid (le (first $ends | atoi) (last $ends | atoi)) -}}{{- end -}}
{{- if $kind.highest -}}{{- $valid = and $valid (le (trim $item | atoi) (int64 $kind.highest | int)) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $valid -}}
{{- fail (printf "%s: invalid value %q; valid: %s" (index . 0) $text $kind.words) -}}
{{- end -}}
{{- end -}}

{{- /* Fails where a value is wrong. */ -}}
{{- define "validate" -}}
{{- range $name := include "needed" . | fromYamlArray -}}
{{- $value := $.Values -}}
{{- range splitList "." $name -}}{{- $value = index $value . -}}{{- end -}}
{{- if kindIs "invalid" $value -}}
{{- fail (printf "%s: null is wrong; leave it out for its default" $name) -}}
{{- end -}}
{{- end -}}
{{- if not (include "platform" . | fromYaml).name -}}
{{- $names := .Files.Get "files/presets.yaml" | fromYaml | keys | sortAlpha | join ", " -}}
{{- fail (printf "kubernetesDistribution: invalid value %q; valid: %s; capitals do not matter" .Values.kubernetesDistribution $names) -}}
{{- end -}}
{{- $kinds := include "kinds" . | fromYaml -}}
{{- range $name, $kind := include "checked" . | fromYaml -}}
{{- $value := $.Values -}}
{{- range splitList "." $name -}}{{- if kindIs "map" $value -}}{{- $value = index $value . -}}{{- end -}}{{- end -}}
{{- if not (kindIs "invalid" $value) -}}{{- include "check" (list $name $value (index $kinds $kind)) -}}{{- end -}}
{{- end -}}
{{- range $name, $kind := dict "agent.extraArgs" "flag" "excludeNamespaces" "pattern" "renewRules" "pattern" "cni.runtimeBinDirs" "fullPath" -}}
{{- $list := $.Values -}}
{{- range splitList "." $name -}}{{- $list = index $list . -}}{{- end -}}
{{- $kind = index $kinds $kind -}}
{{- range $n, $text := $list -}}{{- include "check" (list (printf "%s[%d]" $name $n) $text $kind) -}}{{- end -}}
{{- end -}}
{{- range $n, $env := .Values.agent.extraEnv -}}
{{- if or (eq $env.name "NODE_NAME") (hasPrefix "AGENT_" $env.name) -}}
{{- fail (printf "agent.extraEnv[%d].name: invalid value %q; valid: a name that is neither NODE_NAME nor begins with AGENT_: flags are set by the other values of agent, and by agent.extraArgs" $n $env.name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.test.namespace (has .Values.test.namespace (include "entry" . | fromJson).excludeNamespaces) -}}
{{- fail (printf "test.namespace: invalid value %q; valid: a namespace whose pods may be in the mesh, which neither the chart's own nor one of excludeNamespaces is" .Values.test.namespace) -}}
{{- end -}}
{{- if and (ne .Values.openshift.mode "nad") (not (include "platform" . | fromYaml).openshift) -}}
{{- fail (printf "openshift.mode: %q has no effect with kubernetesDistribution %q; valid: kubernetesDistribution=OpenShift, or cni.mode=aux for Multus elsewhere" .Values.openshift.mode .Values.kubernetesDistribution) -}}
{{- end -}}
{{- if and (eq .Values.repair "apply") (hasPrefix "iptables" .Values.backend) -}}
{{- fail (printf "repair: apply needs nftables, and backend is %q, whose programs the agent's image lacks; valid: auto, delete or off" .Values.backend) -}}
{{- end -}}
{{- if .Values.renewRules -}}
{{- $repair := include "repair" . -}}
{{- if ne $repair "apply" -}}
{{- $why := ternary (include "notApply" . | printf ", because %s") "" (eq .Values.repair "auto") -}}
{{- fail (printf "renewRules: it needs repair: apply, and repair is %q%s; valid: apply, or no renewRules" $repair $why) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (toString .Values.namespace.create) "true") (include "everyCluster" .) -}}
{{- $text := "namespace.create: true, and the namespace is %q, which every cluster has; valid: a namespace of its own" -}}
{{- fail (printf $text (include "namespace" .)) -}}
{{- end -}}
{{- end -}}
