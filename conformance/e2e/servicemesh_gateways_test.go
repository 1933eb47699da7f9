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

// restrictedGateway are values of Istio's chart gateway: what it is without them, and what else Pod Security restricted
// asks for.
const restrictedGateway = `service: {type: ClusterIP}
autoscaling: {enabled: false}
imagePullPolicy: Never
resources: {requests: {cpu: 10m, memory: 64Mi}}
securityContext:
  sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "0"}]
  seccompProfile: {type: RuntimeDefault}
`

// Where requests for shop.example go that come by the gateway of Istio's chart: by Istio's own API.
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

// Two for which istiod makes the pods, with the same route. Whoever has written the second wants its pods redirected.
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

// reachable lets routes of another namespace name a service.
const reachable = `apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: reviews}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: %s}]
  to: [{group: "", kind: Service, name: reviews}]
`

// A gateway of Istio's chart, which is injected, and those that istiod makes for the Gateway API, which are not, take
// plaintext from outside to a service that takes only mTLS. None is redirected, and the mark of whoever could be meant
// for it says why not. All are admitted under restricted.
func (m *serviceMesh) gateways(r *rig) {
	must(r, m.helm.Install("gateway", "gateway", r.namespace, []string{r.file("gateway.yaml", restrictedGateway)}))
	r.apply(r.namespace, fmt.Sprintf(istioGateway, m.namespace))
	for _, plural := range []string{"gatewayclasses", "gateways", "httproutes", "referencegrants"} {
		file := m.helm.GatewayAPI(plural)
		r.Cleanup(func() { r.output(kubectl("delete", "--ignore-not-found", "-f", file)) })
		r.output(kubectl("apply", "--server-side", "-f", file))
		r.output(kubectl("wait", "--for=condition=Established", "-f", file))
	}
	r.apply(m.namespace, fmt.Sprintf(reachable, r.namespace))
	r.apply(r.namespace, fmt.Sprintf(gatewayAPI, m.namespace))
	for name, want := range map[string]struct{ selector, status, reason string }{
		"gateway":  {"istio=gateway", annotation.NotRequired, "proxy-type"},
		"made":     {"gateway.networking.k8s.io/gateway-name=made", "", ""}, // as any pod outside the mesh
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

// onlyReady is the only pod with some labels, once there is one and it is ready.
func (r *rig) onlyReady(selector string) *corev1.Pod {
	r.Helper()
	var name string
	r.eventually("there is a pod "+selector, func() bool {
		name = r.onlyPod(selector)
		return name != ""
	})
	return r.ready(name)
}

// through is what a service has seen of the certificate of a gateway's pod, when a request for a host came by that.
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
