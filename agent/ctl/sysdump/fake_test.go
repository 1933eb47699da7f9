package sysdump

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// secret is in everything that is read and must not be in an archive, in some form.
const secret = "s3cr3tvalue"

// jwt is a service account's token.
const jwt = "eyJhbGciOiJSUzI1NiIsImtpZCI6IkEifQ.eyJzdWIiOiJzM2NyM3R2YWx1ZSJ9.s3cr3tvalue_-signature"

// fake is a cluster in memory with the objects in testdata/cluster.yaml.
type fake struct {
	objects  []*unstructured.Unstructured
	errs     map[string]error // by what is read
	answers  map[string]string
	logs     map[string]string
	previous map[string]string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "cluster.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{errs: map[string]error{}, answers: map[string]string{}, logs: map[string]string{},
		previous: map[string]string{}}
	text := strings.NewReplacer("SECRET", secret, "JWT", jwt).Replace(string(data))
	for _, document := range strings.Split(text, "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			t.Fatalf("%v: %s", err, document)
		}
		f.objects = append(f.objects, o)
	}
	for node, pod := range map[string]string{"node-a.example.com": "istio-pod-network-agent-aaaaa",
		"node-b.example.com": "istio-pod-network-agent-bbbbb"} {
		f.answers[pod+" node"] = `{"node": "` + node + `", "agent": "v1.4.0", "plugin": {"path": ` +
			`"/opt/cni/bin/istio-pod-network", "sha256": "0123", "version": "v1.4.0"}, "ready": true, "checks": [{"name": ` +
			`"installed", "ok": true, "detail": "ready"}], "pods": {"redirected": 1, "waiting": ["shop/cart-7d4b9-x2x4q"]}}`
		f.answers[pod+" files"] = `{"directories": [{"path": "/etc/cni/net.d", "role": "configurations", "files": [` +
			`{"name": "10-calico.conflist", "mode": "-rw-------", "size": 99, "modified": "2026-01-02T03:04:05Z", "text": ` +
			`"{\"name\": \"k8s-pod-network\", \"plugins\": [{\"type\": \"calico\", \"token\": \"` + secret + `\", ` +
			`\"kubernetes\": {\"kubeconfig\": \"/etc/cni/net.d/calico-kubeconfig\"}, \"ipam\": {\"subnet\": ` +
			`\"10.244.0.0/16\"}}]}"}, {"name": "calico-kubeconfig", "mode": "-rw-------", "size": 12, "modified": ` +
			`"2026-01-02T03:04:05Z"}]}, {"path": "/run/istio-pod-network", "role": "state", "files": [{"name": ` +
			`"pods/0a-eth0.json", "mode": "-rw-------", "size": 9, "modified": "2026-01-02T03:04:05Z", "text": ` +
			`"{\"version\":1,\"namespace\":\"gone\",\"name\":\"old-0\",\"netns\":\"b/1/2\"}"}]}]}`
		f.logs[pod] = "" +
			`2026-01-02T03:04:05.1Z time="2026-01-02T03:04:05Z" level=info msg="redirected" pod=shop/cart-7d4b9-x2x4q` +
			"\n" + `2026-01-02T03:04:06.1Z time="2026-01-02T03:04:06Z" level=warning msg="asking https://10.96.0.1:443 with ` +
			`Authorization: Bearer ` + secret + `" pod=shop/deleted-1` + "\n" +
			`2026-01-02T03:04:07.1Z {"level":"info","msg":"line\nshop/deleted-1 of ` + node +
			` at fd00:10:244::7","pod":"shop/deleted-1"}` +
			"\n" + `2026-01-02T03:04:08.1Z a token ` + jwt + " password=" + secret + "\n"
	}
	f.previous["istio-pod-network-agent-bbbbb"] = "2026-01-01T00:00:00Z panic: --token=" + secret + "\n"
	return f
}

// resources are the resources of kinds with an irregular plural.
var resources = map[string]string{"NetworkAttachmentDefinition": "network-attachment-definitions",
	"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}

func resourceOf(kind string) string {
	if name := resources[kind]; name != "" {
		return name
	}
	return strings.ToLower(kind) + "s"
}

func (f *fake) Host() string { return "https://api.shop.example.com:6443" }

func (f *fake) Version(context.Context) (string, error) { return "v1.37.2", f.errs["version"] }

func (f *fake) Each(
	_ context.Context, kind schema.GroupVersionResource, namespace, selector string,
	look func(*unstructured.Unstructured),
) error {
	if kind.Resource == "secrets" {
		panic("Secrets are asked for")
	}
	if err := f.errs[kind.Resource]; err != nil && (kind.Resource != "pods" || selector == "") {
		return err
	}
	if err := f.errs["agents"]; err != nil && kind.Resource == "pods" && selector != "" {
		return err
	}
	if strings.HasPrefix(kind.Resource, "mutatingadmissionpolic") && kind.Version != "v1beta1" ||
		kind.Group == "security.openshift.io" {
		return apierrors.NewNotFound(kind.GroupResource(), "")
	}
	wants, err := labels.Parse(selector)
	if err != nil {
		return err
	}
	for _, o := range f.objects {
		if resourceOf(o.GetKind()) == kind.Resource && (namespace == "" || o.GetNamespace() == namespace) &&
			wants.Matches(labels.Set(o.GetLabels())) {
			look(o.DeepCopy())
		}
	}
	return nil
}

func (f *fake) Inspect(_ context.Context, agent corev1.Pod, what ...string) (json.RawMessage, error) {
	question := strings.Join(what, " ")
	return json.RawMessage(f.answers[agent.Name+" "+question]), f.errs["inspect "+question]
}

func (f *fake) AgentLog(_ context.Context, agent corev1.Pod, previous bool, _ int64, _ int) ([]byte, bool, error) {
	if previous {
		return []byte(f.previous[agent.Name]), false, f.errs["previous"]
	}
	return []byte(f.logs[agent.Name]), false, f.errs["log"]
}

func (f *fake) AgentMetrics(context.Context, corev1.Pod, int) ([]byte, error) {
	return []byte("istio_pod_network_agent_ready 1\n"), f.errs["metrics"]
}
