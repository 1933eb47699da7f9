{{- /* The namespace of all objects. */ -}}
{{- define "namespace" -}}
{{ .Values.Namespace | default .Release.Namespace }}
{{- end -}}

{{- /* The settings of the distribution. Values override them. */ -}}
{{- define "platform" -}}
{{- $name := "" -}}{{- $preset := dict -}}
{{- range $key, $value := .Files.Get "files/presets.yaml" | fromYaml -}}
{{- if eq (lower $key) (lower $.Values.kubernetesDistribution) -}}{{- $name = $key -}}{{- $preset = $value -}}{{- end -}}
{{- end -}}
name: {{ $name }}
binDir: {{ .Values.cni.binDir | default $preset.binDir | quote }}
confDir: {{ .Values.cni.confDir | default $preset.confDir | quote }}
auxDir: {{ .Values.cni.auxDir | default "/var/run/multus/cni/net.d/vendor-cni-chain" | quote }}
openshift: {{ eq $name "OpenShift" }}
{{- $openshift := eq $name "OpenShift" | ternary (get (dict "nad" "nad" "auxChain" "aux") .Values.openshift.mode) "" }}
mode: {{ .Values.cni.mode | default $openshift | default $preset.mode }}
excludeNamespaces: {{ $preset.excludeNamespaces | default list | toJson }}
seLinuxType: {{ .Values.agent.seLinuxType | default $preset.seLinuxType | default "" | quote }}
{{- $quota := .Values.resourceQuota.enabled | toString }}
resourceQuota: {{ ternary (default false $preset.resourceQuota) (eq $quota "true") (eq $quota "") }}
{{- end -}}

{{- /* The directory to mount for a directory: itself, or the parent of a symbolic link in its path. A container keeps the directory to which a link
led when it was made, but `current` of a snap or of K3s leads to another one after an upgrade. */ -}}
{{- define "mountOf" -}}
{{- regexReplaceAll "^(/.+?)/current(/.*)?$" . "${1}" -}}
{{- end -}}

{{- /* Why the agents cannot do `repair: apply`, "" if no reason is known. New network namespaces are mounts that have to propagate into the agent's
container. If the host does not share its mounts, the runtime cannot make a container with mount propagation. The Node objects say what the
nodes run. */ -}}
{{- define "notApply" -}}
{{- $preset := dict -}}
{{- range $key, $value := .Files.Get "files/presets.yaml" | fromYaml -}}
{{- if eq (lower $key) (lower $.Values.kubernetesDistribution) -}}{{- $preset = $value -}}{{- end -}}
{{- end -}}
{{- $why := $preset.notApply | default "" -}}
{{- if hasPrefix "iptables" .Values.backend -}}
{{- $why = printf "backend is %s, whose programs the agent's image lacks" .Values.backend -}}
{{- else if and $preset.varies (include "connected" .) -}}
{{- range (lookup "v1" "Node" "" "").items -}}
{{- $info := (.status | default dict).nodeInfo | default dict -}}
{{- $os := $info.osImage | default "" -}}{{- $runtime := $info.containerRuntimeVersion | default "" -}}
{{- if hasPrefix "Alpine Linux" $os -}}
{{- $why = printf "the node %s runs %s, which shares no mounts unless told to" .metadata.name $os -}}
{{- else if hasPrefix "docker://" $runtime -}}
{{- $why = printf "the runtime of the node %s is %s, by cri-dockerd, which keeps no network namespaces that the agent could see" .metadata.name $runtime -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ $why }}
{{- end -}}

{{- /* The agents' --repair: what they do about pods that came too early. */ -}}
{{- define "repair" -}}
{{- if ne .Values.repair "auto" -}}{{ .Values.repair }}
{{- else if include "notApply" . -}}delete
{{- else -}}apply
{{- end -}}
{{- end -}}

{{- /* Excludes nodes without a host by their labels, because no agent can run there: AWS Fargate (aws/amazon-vpc-cni-k8s:
charts/aws-vpc-cni/values.yaml), and virtual nodes, as of AKS (Azure/azure-container-networking issue 1897). An agent tolerates their taints,
and would stay pending. */ -}}
{{- define "haveHosts" -}}
- {key: eks.amazonaws.com/compute-type, operator: NotIn, values: [fargate]}
- {key: type, operator: NotIn, values: [virtual-kubelet]}
{{- end -}}

{{- /* The affinity of the values, limited to nodes with a host. Terms are alternatives, so each of them gets that condition. */ -}}
{{- define "affinity" -}}
{{- $affinity := deepCopy (.Values.affinity | default dict) -}}
{{- $nodes := get $affinity "nodeAffinity" | default dict -}}
{{- $required := get $nodes "requiredDuringSchedulingIgnoredDuringExecution" | default dict -}}
{{- $terms := list -}}
{{- range $term := get $required "nodeSelectorTerms" | default (list dict) -}}
{{- $expressions := concat (get $term "matchExpressions" | default list) (include "haveHosts" $ | fromYamlArray) -}}
{{- $terms = append $terms (merge (dict "matchExpressions" $expressions) $term) -}}
{{- end -}}
{{- $required = merge (dict "nodeSelectorTerms" $terms) $required -}}
{{- $nodes = merge (dict "requiredDuringSchedulingIgnoredDuringExecution" $required) $nodes -}}
{{- toYaml (merge (dict "nodeAffinity" $nodes) $affinity) -}}
{{- end -}}

{{- /* The name of an image. (list . $image) */ -}}
{{- define "image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}
{{- $tag := $image.tag | default $root.Values.image.tag | default $root.Chart.AppVersion -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $tag }}{{ end -}}
{{- end -}}

{{- /* Labels of the agents' pods, and of their selectors. */ -}}
{{- define "podLabels" -}}
app.kubernetes.io/name: istio-pod-network-agent
app.kubernetes.io/part-of: istio-pod-network-controller
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- /* Labels of every object except pods, with those that Helm recommends (helm.sh/docs/chart_best_practices/labels). Pods do not have the chart's
version, because a new chart with the same agent would replace all of them. */ -}}
{{- define "labels" -}}
{{ include "podLabels" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end -}}

{{- /* Labels or annotations of the values. The chart's own take precedence, because others need them. (list $ours $theirs) */ -}}
{{- define "beneath" -}}
{{- merge (index . 0 | fromYaml) (index . 1 | default dict) | toYaml -}}
{{- end -}}

{{- /* Seconds of a duration. */ -}}
{{- define "seconds" -}}
{{- $zero := toDate "2006-01-02" "2001-01-01" -}}
{{- sub (dateModify . $zero | unixEpoch) (unixEpoch $zero) -}}
{{- end -}}

{{- /* "true" if Helm has access to a cluster: every cluster has kube-system. */ -}}
{{- define "connected" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" }}true{{ end -}}
{{- end -}}

{{- /* "true" if the namespace exists in every cluster. The chart must not change its labels. */ -}}
{{- define "everyCluster" -}}
{{- if has (include "namespace" .) (list "default" "kube-system" "kube-public" "kube-node-lease") }}true{{ end -}}
{{- end -}}

{{- /* "true" if the namespace is to be rendered. */ -}}
{{- define "rendersNamespace" -}}
{{- $create := toString .Values.namespace.create -}}
{{- $auto := and (eq $create "auto") (not (include "connected" .)) (not (include "everyCluster" .)) -}}
{{- if or (eq $create "true") $auto }}true{{ end -}}
{{- end -}}

{{- /* "true" if hooks and tests are to be rendered. */ -}}
{{- define "rendersHooks" -}}
{{- $hooks := toString .Values.hooks -}}
{{- if or (eq $hooks "true") (and (eq $hooks "auto") (include "connected" .)) }}true{{ end -}}
{{- end -}}

{{- /* The securityContext that Pod Security restricted requires. (list . $user $imageUser) On OpenShift the platform sets the user, whatever the
image's is. */ -}}
{{- define "restricted" -}}
{{- $root := index . 0 -}}{{- $user := index . 1 -}}
{{- $openshift := (include "platform" $root | fromYaml).openshift -}}
{{- if not $openshift }}
runAsUser: {{ $user }}
runAsGroup: {{ $user }}
{{- end }}
{{- if not (and $openshift (eq (index . 2) 0)) }}
runAsNonRoot: true
{{- end }}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* The securityContext of the agent's container, overridden by agent.securityContext. CHOWN, DAC_OVERRIDE and FOWNER: directories and files may
belong to another user (Kubespray's kube, MicroK8s' microk8s), and the agent changes them and keeps their owner. LEASE: it notices who is
writing them. With repair: apply the agent runs the plugin, which needs more. SYS_ADMIN and NET_ADMIN: it enters a pod's network namespace and
writes the rules. DAC_READ_SEARCH: it reads /proc for a network namespace that belongs to a user namespace. SETGID and SETUID:
istio-pod-network-look sends a packet as the user of a pod's app (istio-pod-networkctl trace --live). */ -}}
{{- define "agentSecurityContext" -}}
{{- $more := deepCopy (.Values.agent.securityContext | default dict) -}}
{{- $applies := eq (include "repair" .) "apply" -}}
{{- $capabilities := list "CHOWN" "DAC_OVERRIDE" "FOWNER" "LEASE" -}}
{{- if $applies -}}{{- $capabilities = concat $capabilities (list "DAC_READ_SEARCH" "NET_ADMIN" "SETGID" "SETUID" "SYS_ADMIN") -}}{{- end -}}
{{- $capabilities = concat $capabilities ((get $more "capabilities" | default dict).add | default list) | uniq | sortAlpha -}}
{{- $escalates := or $applies (has "SYS_ADMIN" $capabilities) ($more.privileged | default false) -}}{{- /* the API requires true with these */ -}}
{{- $ours := dict "runAsUser" 0 "privileged" false "readOnlyRootFilesystem" true "allowPrivilegeEscalation" $escalates
  "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- with (include "platform" . | fromYaml).seLinuxType -}}{{- $_ := set $ours "seLinuxOptions" (dict "type" .) -}}{{- end -}}
{{- if $more.seccompProfile -}}{{- $_ := unset $ours "seccompProfile" -}}{{- end -}}
{{- $_ := set $more "capabilities" (dict "drop" (list "ALL") "add" $capabilities) -}}
{{- mergeOverwrite $ours $more | toYaml -}}
{{- end -}}

{{- /* The namespace of the pod of `helm test`. */ -}}
{{- define "testNamespace" -}}
{{ .Values.test.namespace | default "istio-pod-network-test" }}
{{- end -}}

{{- /* The plugin's settings of mesh pods: the values of 2018 under their present names, and redirect. */ -}}
{{- define "redirect" -}}
{{- $redirect := deepCopy (.Values.redirect | default dict) -}}
{{- $values := .Values -}}
{{- range $old, $new := dict "includeIPRanges" "includeOutboundIPRanges" "excludeIPRanges" "excludeOutboundIPRanges"
  "excludeInboundPorts" "excludeInboundPorts" -}}
{{- $unsaid := ternary "*" "" (eq $old "includeIPRanges") -}}
{{- $value := hasKey $values $old | ternary (index $values $old | toString) $unsaid -}}
{{- if ne $value $unsaid -}}
{{- if hasKey $redirect $new -}}
{{- fail (printf "%s: %q: redirect.%s says %q; valid: one of the two" $old $value $new (index $redirect $new | toString)) -}}
{{- end -}}
{{- $_ := set $redirect $new $value -}}
{{- end -}}
{{- end -}}
{{- range $key := list "includeInboundPorts" "includeOutboundPorts" "excludeInboundPorts" "excludeOutboundPorts" -}}
{{- if hasKey $redirect $key -}}{{- $_ := set $redirect $key (index $redirect $key | toString) -}}{{- end -}}
{{- end -}}
{{ toJson $redirect }}
{{- end -}}

{{- /* The plugin's entry, which agent and plugin read. */ -}}
{{- define "entry" -}}
{{- toPrettyJson (dict
  "type" "istio-pod-network"
  "capabilities" (dict "io.kubernetes.cri.pod-annotations" true)
  "agentSocket" (printf "%s/agent.sock" .Values.stateDir)
  "agentTimeout" .Values.agentTimeout
  "statusRequiresAgent" .Values.statusRequiresAgent
  "stateDir" .Values.stateDir
  "backend" .Values.backend
  "selection" .Values.selection
  "excludeNamespaces" (append (concat (.Values.excludeNamespaces | default list) (include "platform" . | fromYaml).excludeNamespaces) (include "namespace" .) | uniq)
  "sharedProxyUser" .Values.sharedProxyUser
  "auxFailOpen" .Values.openshift.auxFailOpen
  "redirect" (include "redirect" . | fromJson)
  "logLevel" .Values.pluginLogLevel
) -}}
{{- end -}}

{{- /* The name of the NetworkAttachmentDefinition: Istio's, unless Istio CNI already has one with that name. */ -}}
{{- define "networkName" -}}
{{- if .Values.openshift.networkName -}}
{{ .Values.openshift.networkName }}
{{- else -}}
{{- $there := lookup "k8s.cni.cncf.io/v1" "NetworkAttachmentDefinition" .Values.openshift.networkNamespace "istio-cni" -}}
{{- $labels := ($there.metadata | default dict).labels | default dict -}}
{{- if and $there (ne (get $labels "app.kubernetes.io/part-of") "istio-pod-network-controller") }}istio-pod-network{{ else }}istio-cni{{ end }}
{{- end -}}
{{- end -}}

{{- /* "true" if the admission policy is to be rendered. Without a cluster, the Kubernetes version decides whether the API server has it. */ -}}
{{- define "rendersPolicy" -}}
{{- $enabled := toString .Values.admissionPolicy.enabled -}}
{{- $has := semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}
{{- if include "connected" . -}}
{{- $has = .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- end -}}
{{- if or (eq $enabled "true") (and (eq $enabled "auto") $has) }}true{{ end -}}
{{- end -}}

{{- /* The API version of MutatingAdmissionPolicy, "" if there is none. Without a cluster, the Kubernetes version decides. */ -}}
{{- define "mutatingAPI" -}}
{{- if include "connected" . -}}
{{- range $version := list "v1" "v1beta1" -}}
{{- if $.Capabilities.APIVersions.Has (printf "admissionregistration.k8s.io/%s/MutatingAdmissionPolicy" $version) }}admissionregistration.k8s.io/{{ $version }}{{ break }}{{ end -}}
{{- end -}}
{{- else if semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version }}admissionregistration.k8s.io/v1
{{- else if semverCompare ">=1.34.0-0" .Capabilities.KubeVersion.Version }}admissionregistration.k8s.io/v1beta1
{{- end -}}
{{- end -}}

{{- /* The same if no value asks for a mutation. Without a cluster it counts only Kubernetes versions in which it is enabled by default. */ -}}
{{- define "copiedMarksAPI" -}}
{{- if or (include "connected" .) (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version) }}{{ include "mutatingAPI" . }}{{ end -}}
{{- end -}}

{{- /* The largest number of annotations with which a pod may be marked: the API server needs processor time to compare each. */ -}}
{{- define "mostAnnotations" }}1000{{ end -}}

{{- /* The largest number of field managers of an object: each is searched for among all. The API server keeps ten of operation Update. */ -}}
{{- define "mostManagers" }}30{{ end -}}

{{- /* CEL: the fields of an entry of metadata.managedFields, at the top or below `parent` and `child`, as a map. */ -}}
{{- define "managed" }}dyn({{ .entry }}).?fieldsV1{{ with .parent }}[?'{{ . }}']{{ end }}{{ with .child }}[?'{{ . }}']{{ end }}.orValue({}){{ end -}}

{{- /* CEL: one level of an entry's fields, except `key`, is the same in another entry. False if the level is large. */ -}}
{{- define "sameFields" -}}
size({{ .before }}) <= 30 && {{ .before }}.all(k, k == '{{ .key }}' || {{ .after }}[?k] == {{ .before }}[?k]) && {{ .after }}.all(k, k in {{ .before }})
{{- end -}}

{{- /* CEL: variables.managersAfter has everything in variables.managersBefore, and nothing new except an update by the agent. Other managers may lose
the fields that the agent writes: `child` below `parent`, or the variable `fields` below that. Large parts are compared as a whole or counted,
because a loop over them would take the API server seconds. If there are more than ten updates, the API server merges the oldest ones
(capmanagers.go in k8s.io/apimachinery/pkg/util/managedfields/internal), so these are not compared then. */ -}}
{{- define "managersKept" -}}
{{- $o := include "managed" (dict "entry" "o") -}}
{{- $n := include "managed" (dict "entry" "n") -}}
{{- $op := include "managed" (dict "entry" "o" "parent" .parent) -}}
{{- $np := include "managed" (dict "entry" "n" "parent" .parent) -}}
{{- $oc := include "managed" (dict "entry" "o" "parent" .parent "child" .child) -}}
{{- $nc := include "managed" (dict "entry" "n" "parent" .parent "child" .child) -}}
{{- $wrote := printf "'%s' in %s" .child $op -}}
{{- $only := printf "%s.all(k, k == '%s') && %s.all(k, k == '%s')" $o .parent $op .child -}}
{{- $lost := printf "o.?manager == n.?manager && o.operation == n.operation && o.?subresource == n.?subresource && o.?apiVersion == n.?apiVersion && o.?time == n.?time && %s && %s" (include "sameFields" (dict "before" $o "after" $n "key" .parent)) (include "sameFields" (dict "before" $op "after" $np "key" .child)) -}}
{{- if .fields -}}
{{- $wrote = printf "%s.exists(k, k in %s)" .fields $oc -}}
{{- $only = printf "%s && %s.all(k, k == '.' || k in %s)" $only $oc .fields -}}
{{- $lost = printf "%s && size(%s) - size(%s.filter(k, k in %s)) == size(%s) - size(%s.filter(k, k in %s))" $lost $nc .fields $nc $oc .fields $oc -}}
{{- end -}}
{{- $capped := "size(variables.managersBefore.filter(e, e.operation == 'Update')) >= 10" -}}
variables.managersBefore.all(o, o in variables.managersAfter || ({{ $only }}) || ({{ $wrote }} && variables.managersAfter.exists(n, {{ $lost }}))
|| (o.operation == 'Update' && {{ $capped }}))
&& variables.managersAfter.all(n, n in variables.managersBefore || (n.operation == 'Update' && n.?manager.orValue('') == 'istio-pod-network-agent'
&& n.?subresource.orValue('') == '{{ .subresource }}' && {{ $only | replace "dyn(o)" "dyn(n)" }}) || variables.managersBefore.exists(o, {{ $wrote }} && {{ $lost }})
|| (n.operation == 'Update' && n.?manager.orValue('') == 'ancient-changes' && {{ $capped }}))
{{- end -}}

{{- /* "true" if istio-init is to be replaced. */ -}}
{{- define "rendersReplaceInit" -}}
{{- if .Values.injection.replaceInit -}}
{{- if not (include "mutatingAPI" .) -}}
{{- fail "injection.replaceInit: true, and this API server has no MutatingAdmissionPolicy; valid: false, and one of the other ways in docs/injection.md" -}}
{{- end -}}
true
{{- end -}}
{{- end -}}
