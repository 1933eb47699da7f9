{{- /* What a schema could only call a pattern that does not match: each kind of value, and in words what is valid. */ -}}
{{- define "kinds" -}}
path: {pattern: '^(/[^/]+)+$', words: an absolute path without a slash at its end}
pathOrNone: {pattern: '^((/[^/]+)+)?$', words: 'an absolute path without a slash at its end, or empty for that of kubernetesDistribution'}
duration: {pattern: '^([0-9]+([.][0-9]+)?(ms|s|m|h))+$', words: 'a duration, such as 500ms, 8s or 10m'}
registry: {pattern: '^([a-zA-Z0-9][-a-zA-Z0-9._]*(:[0-9]+)?(/[-a-z0-9._/]+)?)?$', words: 'a registry without a scheme, such as registry.example.com/mesh'}
tag: {pattern: '^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$', words: the tag of an image}
digest: {pattern: '^(sha256:[0-9a-f]{64})?$', words: 'sha256: and 64 hexadecimal digits'}
runtime: {pattern: '^([a-z-]+://[0-9].*)?$', words: "a node's containerRuntimeVersion, such as containerd://2.1.4"}
address: {pattern: '^([0-9.]+|\[[0-9a-fA-F:.]+\])?$', words: 'an IP address, one of IPv6 in brackets'}
flag: {pattern: '^--[a-z]', words: a flag of istio-pod-network-agent with its value}
ranges: {pattern: '^([*]|([0-9a-fA-F:.]+/[0-9]{1,3}(,[0-9a-fA-F:.]+/[0-9]{1,3})*)?)$', words: '* or prefixes such as 10.96.0.0/12,fd00::/8, without spaces'}
prefixes: {pattern: '^([0-9a-fA-F:.]+/[0-9]{1,3}(,[0-9a-fA-F:.]+/[0-9]{1,3})*)?$', words: 'prefixes such as 10.96.0.0/12,fd00::/8, without spaces'}
ports: {pattern: '^([0-9]{1,5}( *, *[0-9]{1,5})*)?$', words: 'ports such as 80,8080'}
allPorts: {pattern: '^([*]|([0-9]{1,5}( *, *[0-9]{1,5})*)?)$', words: '* or ports such as 80,8080'}
namespace: {pattern: '^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$', words: the name of a namespace}
{{- end -}}

{{- /* Fails with the name of a value, what it is, and what is valid. */ -}}
{{- define "validate" -}}
{{- $kinds := include "kinds" . | fromYaml -}}
{{- $v := .Values -}}
{{- $checks := list
  (list "Namespace" $v.Namespace "namespace")
  (list "image.registry" $v.image.registry "registry") (list "image.tag" $v.image.tag "tag")
  (list "image.digest" $v.image.digest "digest") (list "pluginImage.digest" $v.pluginImage.digest "digest")
  (list "cni.binDir" $v.cni.binDir "pathOrNone") (list "cni.confDir" $v.cni.confDir "pathOrNone")
  (list "cni.auxDir" $v.cni.auxDir "path") (list "cni.runtimeVersion" $v.cni.runtimeVersion "runtime")
  (list "stateDir" $v.stateDir "path") (list "agentTimeout" $v.agentTimeout "duration") (list "uninstallTimeout" $v.uninstallTimeout "duration")
  (list "metrics.podMonitor.interval" $v.metrics.podMonitor.interval "duration") (list "agent.listenAddress" $v.agent.listenAddress "address")
  (list "includeIPRanges" $v.includeIPRanges "ranges") (list "excludeIPRanges" $v.excludeIPRanges "prefixes")
  (list "excludeInboundPorts" $v.excludeInboundPorts "ports") -}}
{{- range $key, $kind := dict "includeOutboundIPRanges" "ranges" "excludeOutboundIPRanges" "prefixes" "includeInboundPorts" "allPorts" "excludeInboundPorts" "ports" "includeOutboundPorts" "allPorts" "excludeOutboundPorts" "ports" -}}
{{- if hasKey $v.redirect $key -}}{{- $checks = append $checks (list (printf "redirect.%s" $key) (index $v.redirect $key) $kind) -}}{{- end -}}
{{- end -}}
{{- range $n, $flag := $v.agent.extraArgs -}}{{- $checks = append $checks (list (printf "agent.extraArgs[%d]" $n) $flag "flag") -}}{{- end -}}
{{- range $checks -}}
{{- $kind := index $kinds (index . 2) -}}
{{- $text := index . 1 | toString -}}
{{- if not (regexMatch $kind.pattern $text) -}}
{{- fail (printf "%s: %q is wrong; valid: %s" (index . 0) $text $kind.words) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (toString $v.namespace.create) "true") (eq (include "namespace" .) "default" "kube-system") -}}
{{- fail (printf "namespace.create: true, and the namespace is %q, which every cluster has; valid: a namespace of its own" (include "namespace" .)) -}}
{{- end -}}
{{- end -}}
