{{- /* A pod like a mesh pod, with a stand-in of its sidecar: for `helm test`, and in a ConfigMap for `istio-pod-networkctl verify`. */ -}}
{{- define "meshPodAnnotations" -}}
{{- $platform := include "platform" . | fromYaml -}}
sidecar.istio.io/status: '{"containers":["istio-proxy"]}'
istio-pod-network-controller/initialize: "true"
# Calls of this pod to addresses that do not exist are captured, whatever redirect says for other pods. On OpenShift all containers get one user,
# which is not the sidecar's. So probe and stand-in count as apps there, and the stand-in's UDP answers to DNS do not count as the sidecar's.
sidecar.istio.io/interceptionMode: REDIRECT # a sidecar with TPROXY needs more than Pod Security restricted allows
pod-network-controller.istio.io/envoy-userid: "1337"
pod-network-controller.istio.io/includeOutboundOwnerGroups: "*"
pod-network-controller.istio.io/excludeOutboundOwnerGroups: ""
traffic.sidecar.istio.io/includeOutboundIPRanges: "*"
traffic.sidecar.istio.io/excludeOutboundIPRanges: ""
traffic.sidecar.istio.io/includeInboundPorts: "*"
traffic.sidecar.istio.io/excludeInboundPorts: ""
traffic.sidecar.istio.io/includeOutboundPorts: ""
traffic.sidecar.istio.io/excludeOutboundPorts: ""
{{- if eq $platform.mode "nad" }}
k8s.v1.cni.cncf.io/networks: {{ .Values.openshift.networkNamespace }}/{{ include "networkName" . }}
{{- end }}
{{- end -}}

{{- /* Its specification, without the service account. */ -}}
{{- define "meshPodSpec" -}}
{{- $platform := include "platform" . | fromYaml -}}
{{- $redirect := include "redirect" . | fromJson -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: # of the pod's own namespace
  {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
restartPolicy: Never
nodeSelector: # nodes with agents
  {{- merge (dict "kubernetes.io/os" "linux") (.Values.nodeSelector | default dict) | toYaml | nindent 2 }}
affinity:
  {{- include "affinity" . | nindent 2 }}
initContainers:
{{- range $mode := list "annotation" "probe" }}
- name: {{ $mode }}
  image: {{ include "image" (list $ $.Values.pluginImage) | quote }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  command: [/istio-pod-network-wait]
  args:
  - --mode={{ $mode }}
  - --file=/etc/podinfo/annotations
  - --timeout=60s
  - --proxy-uid=1337
  - --inbound-port={{ $redirect.inboundPort | default 15006 | int }}
  - --outbound-port={{ $redirect.outboundPort | default 15001 | int }}
  {{- if eq $redirect.families "proxy" }}
  - --families=proxy
  {{- end }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 32Mi}
  securityContext:
    {{- include "restricted" (list $ 1337 65532) | trim | nindent 4 }}
  volumeMounts:
  - {name: podinfo, mountPath: /etc/podinfo}
{{- end }}
containers:
{{- range $command, $container := dict "sidecar" "istio-proxy" "app" "app" }}
- name: {{ $container }}
  image: {{ include "image" (list $ $.Values.pluginImage) | quote }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  command: [/istio-pod-network-flows, {{ $command }}]
  args:
  - --quit # after the app's flows
  {{- if eq $redirect.families "proxy" }}
  - --families=proxy
  {{- end }}
  {{- if eq $command "app" }}
  {{- if not $platform.openshift }} {{- /* there the stand-in counts as an app: see above */}}
  - --dns
  {{- end }}
  - --timeout=60s
  {{- else }}
  - --inbound-port={{ $redirect.inboundPort | default 15006 | int }}
  - --outbound-port={{ $redirect.outboundPort | default 15001 | int }}
  - --dns-port={{ $redirect.dnsPort | default 15053 | int }}
  env:
  - {name: ISTIO_META_DNS_CAPTURE, value: "true"}
  {{- end }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 32Mi}
  securityContext:
    {{- include "restricted" (list $ (ternary 1337 65532 (eq $command "sidecar")) 65532) | trim | nindent 4 }}
{{- end }}
volumes:
- name: podinfo
  downwardAPI:
    items:
    - {path: annotations, fieldRef: {fieldPath: metadata.annotations}}
{{- end -}}
