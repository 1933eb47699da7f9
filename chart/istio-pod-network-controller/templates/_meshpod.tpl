{{- /* A pod like one of the mesh, with a stand-in of its sidecar: `helm test` makes it, and `istio-pod-networkctl verify` reads it of a ConfigMap. */ -}}
{{- define "meshPodAnnotations" -}}
{{- $platform := include "platform" . | fromYaml -}}
sidecar.istio.io/status: '{"containers":["istio-proxy"]}'
istio-pod-network-controller/initialize: "true"
# Whatever redirect says of other pods, this one's calls to addresses that nobody has are captured. On OpenShift all containers get one user,
# which is not the sidecar's, so that probe and stand-in are apps there, and its answers to DNS by UDP no sidecar's.
sidecar.istio.io/interceptionMode: REDIRECT # what TPROXY needs of a sidecar is more than Pod Security restricted allows
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

{{- /* And its specification, but for its account. */ -}}
{{- define "meshPodSpec" -}}
{{- $platform := include "platform" . | fromYaml -}}
{{- $redirect := include "redirect" . | fromJson -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: # of the pod's own namespace
  {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
restartPolicy: Never
nodeSelector: # where there are agents
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
  - --quit # when the app's flows are made
  {{- if eq $redirect.families "proxy" }}
  - --families=proxy
  {{- end }}
  {{- if eq $command "app" }}
  {{- if not $platform.openshift }} {{- /* where the stand-in is an app by its user: see above */}}
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
