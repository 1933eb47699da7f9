package e2e

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
)

// restrictedGateway are values of Istio's chart gateway. The chart's default securityContext is repeated, because a
// value replaces it, and seccompProfile is added, which Pod Security restricted requires.
const restrictedGateway = `service: {type: ClusterIP}
autoscaling: {enabled: false}
imagePullPolicy: Never
resources: {requests: {cpu: 10m, memory: 64Mi}}
securityContext:
  sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "0"}]
  seccompProfile: {type: RuntimeDefault}
`

// istioGateway routes requests for shop.example through the gateway of Istio's chart, with Istio's own API.
const istioGateway = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: chart}
spec:
  selector: {istio: gateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: chart}
spec:
  hosts: [shop.example]
  gateways: [chart]
  http: [{route: [{destination: {host: reviews.%s.svc.cluster.local}}]}]
`

// gatewayAPI has two gateways whose pods istiod creates, with the same route. The second one's author has opted its
// pods in.
const gatewayAPI = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: made, annotations: {networking.istio.io/service-type: ClusterIP}}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: shop.example}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: opted-in, annotations: {networking.istio.io/service-type: ClusterIP}}
spec:
  gatewayClassName: istio
  infrastructure: {annotations: {` + initialize + `: "true"}}
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: shop.example}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{name: made}, {name: opted-in}]
  hostnames: [shop.example]
  rules: [{backendRefs: [{name: reviews, namespace: %s, port: 80}]}]
`

// reachable allows routes of another namespace to refer to a service.
const reachable = `apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: reviews}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: %s}]
  to: [{group: "", kind: Service, name: reviews}]
`

// gateways tests a gateway of Istio's chart, which is injected, and gateways that istiod creates for the Gateway API,
// which are not. They forward plaintext from outside to a service that accepts only mTLS. None is redirected. The mark
// says why not, if the pod could be meant for the mesh. Pod Security restricted admits all of them.
func (m *serviceMesh) gateways(r *rig) {
	must(r, m.helm.Install("gateway", "gateway", r.namespace, []string{r.file("gateway.yaml", restrictedGateway)}))
	r.apply(r.namespace, fmt.Sprintf(istioGateway, m.namespace))
	for _, plural := range []string{"gatewayclasses", "gateways", "httproutes", "referencegrants"} {
		file := m.helm.GatewayAPI(plural)
		r.Cleanup(func() { r.output(kubectl("delete", "--ignore-not-found", "-f", file)) })
		r.output(kubectl("apply", "--server-side", "-f", file))
		r.output(kubectl("wait", "--for=condition=Established", waits(), "-f", file))
	}
	r.apply(m.namespace, fmt.Sprintf(reachable, r.namespace))
	r.apply(r.namespace, fmt.Sprintf(gatewayAPI, m.namespace))
	for name, want := range map[string]struct{ selector, status, reason string }{
		"gateway":  {"istio=gateway", annotation.NotRequired, "proxy-type"},
		"made":     {"gateway.networking.k8s.io/gateway-name=made", "", ""}, // like any pod outside the mesh
		"opted-in": {"gateway.networking.k8s.io/gateway-name=opted-in", annotation.NotRequired, "inject-disabled"},
	} {
		pod := r.onlyReady(want.selector)
		r.eventually("reviews answers by the gateway "+name, func() bool {
			client, err := through(pod, "shop.example")
			return err == nil && strings.Contains(client, ";URI=spiffe://cluster.local/ns/"+r.namespace+"/sa/"+
				pod.Spec.ServiceAccountName)
		})
		r.eventually(fmt.Sprintf("%s is marked %q, %q", name, want.status, want.reason), func() bool {
			a := r.pod(pod.Name).Annotations
			return a[annotation.Status] == want.status && a[annotation.Reason] == want.reason
		})
		there := *r
		there.node = nodes.Nodes[slices.IndexFunc(nodes.Nodes,
			func(n *cluster.Node) bool { return n.Name == pod.Spec.NodeName })]
		if rules := there.ruleset(pod.Name); rules != "" {
			r.Errorf("rules in the gateway %s:\n%s", name, rules)
		}
	}
}

// onlyReady waits until a pod with those labels exists and is ready, and returns it.
func (r *rig) onlyReady(selector string) *corev1.Pod {
	r.Helper()
	var name string
	r.eventually("there is a pod "+selector, func() bool {
		name = r.onlyPod(selector)
		return name != ""
	})
	return r.ready(name)
}

// through sends a request for a host to a gateway's pod. It returns what the service has seen of the gateway's client
// certificate.
func through(gateway *corev1.Pod, host string) (client string, err error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+gateway.Status.PodIP+"/", nil)
	if err != nil {
		return "", err
	}
	request.Host = host
	response, err := (&http.Client{Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return answer{Body: string(data)}.page().Client, err
}
