package kube

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
)

// answering returns a client of an API server that answers with the function's result, and the requests: method, path,
// content type and body.
func answering(t *testing.T, answer func(request string) (status int, body string)) (c *Client, requests *[]string) {
	t.Helper()
	requests = new([]string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		request := strings.TrimSpace(strings.Join([]string{r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"),
			string(body)}, " "))
		*requests = append(*requests, request)
		status, text := answer(request)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	await.Must(t, os.WriteFile(path, kubeconfig(server.URL), 0o600))
	c, err := Connect(Config{Kubeconfig: path, QPS: 100, Burst: 100})
	await.Must(t, err)
	return c, requests
}

// kubeconfig returns a kubeconfig without credentials.
func kubeconfig(server string) []byte {
	return fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c",
		"cluster": {"server": %q}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`, server)
}

// RemoveTaint removes our taint alone, and only from the node as it was read. After a conflict it reads the node again.
func TestRemoveTaint(t *testing.T) {
	const (
		get      = "GET /api/v1/nodes/n"
		ours     = `{"key": "k", "effect": "NoSchedule"}`
		other    = `{"key": "other", "effect": "NoExecute"}`
		conflict = `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409}`
	)
	patch := func(version, taints string) string {
		return `PATCH /api/v1/nodes/n?fieldManager=istio-pod-network-agent application/merge-patch+json ` +
			`{"metadata": {"resourceVersion": "` + version + `"}, "spec": {"taints": ` + taints + `}}`
	}
	for name, c := range map[string]struct {
		taints   string
		statuses []int // of the answers to the patches
		requests []string
		removed  bool
		words    string // in the error
	}{
		"none":   {``, nil, []string{get}, false, ""},
		"others": {other, nil, []string{get}, false, ""},
		"ours":   {ours, []int{200}, []string{get, patch("1", "[]")}, true, ""},
		"among others": {other + "," + ours, []int{200},
			[]string{get, patch("1", `[{"key":"other","effect":"NoExecute"}]`)}, true, ""},
		"with both its effects": {ours + `, {"key": "k", "effect": "NoExecute"}`, []int{200}, []string{get, patch("1", "[]")},
			true, ""},
		"changed meanwhile": {ours, []int{409, 200}, []string{get, patch("1", "[]"), get, patch("2", "[]")}, true, ""},
		"forbidden":         {ours, []int{403}, []string{get, patch("1", "[]")}, false, "forbidden"},
	} {
		reads, patches := 0, 0
		client, requests := answering(t, func(request string) (int, string) {
			if strings.HasPrefix(request, "GET") {
				reads++
				return 200, fmt.Sprintf(`{"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n", "resourceVersion": `+
					`"%d"}, "spec": {"taints": [%s]}}`,
					reads, c.taints)
			}
			patches++
			switch status := c.statuses[patches-1]; status {
			case 409:
				return status, conflict
			case 403:
				return status, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "message": ` +
					`"forbidden", "code": 403}`
			}
			return 200, `{"kind": "Node", "apiVersion": "v1"}`
		})
		removed, err := client.RemoveTaint(Patient(t.Context()), "n", "k")
		if removed != c.removed || (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: removed is %t, %v", name, removed, err)
		}
		if !slices.Equal(*requests, c.requests) {
			t.Errorf("%s: %q, want %q", name, *requests, c.requests)
		}
	}
}

// Each request has the right path and body, and needs only the rights in rbac.yaml.
func TestRequests(t *testing.T) {
	const pod = `{"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "s", "name": "p", "managedFields": ` +
		`[{"manager": "m"}]}, "spec": {"nodeName": "n"}}`
	ctx := Patient(t.Context()) // for slow machines
	for name, c := range map[string]struct {
		do     func(*Client) (string, error)
		answer string
		want   string // the request
		result string
	}{
		"a pod, trimmed": {func(c *Client) (string, error) {
			pod, err := c.Pod(ctx, "s", "p")
			return fmt.Sprint(pod.Spec.NodeName, len(pod.ManagedFields)), err
		}, pod, "GET /api/v1/namespaces/s/pods/p", "n0"},
		"a mark": {func(c *Client) (string, error) {
			return "", c.PatchPod(ctx, "s", "p", []byte(`{"metadata":{}}`))
		}, pod, `PATCH /api/v1/namespaces/s/pods/p/status?fieldManager=istio-pod-network-agent ` +
			`application/merge-patch+json {"metadata":{}}`, ""},
		"a deletion": {func(c *Client) (string, error) { return "", c.DeletePod(ctx, "s", "p", "u") }, pod,
			`DELETE /api/v1/namespaces/s/pods/p application/json {"kind":"DeleteOptions","apiVersion":"v1",` +
				`"preconditions":{"uid":"u"}}`, ""},
		"a namespace": {func(c *Client) (string, error) {
			annotations, err := c.NamespaceAnnotations(ctx, "s")
			return annotations["a"], err
		}, `{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "s", "annotations": ` +
			`{"a": "b"}}}`,
			"GET /api/v1/namespaces/s", "b"},
		"the container runtime": {func(c *Client) (string, error) { return c.RuntimeVersion(ctx, "n") },
			`{"kind": "Node", "apiVersion": "v1", "status": {"nodeInfo": {"containerRuntimeVersion": "containerd://2.1.4"}}}`,
			"GET /api/v1/nodes/n", "containerd://2.1.4"},
		"a DaemonSet": {func(c *Client) (string, error) {
			d, err := c.DaemonSet(ctx, "s", "d")
			return fmt.Sprint(d.Done(), d.Spec.Selector.MatchLabels), err
		}, `{"metadata": {"generation": 2}, "spec": {"selector": {"matchLabels": {"a": "b"}}}, "status": ` +
			`{"observedGeneration": 1}}`,
			"GET /apis/apps/v1/namespaces/s/daemonsets/d", "false map[a:b]"},
		"a change of one": {func(c *Client) (string, error) {
			return "",
				c.PatchDaemonSet(ctx, "s", "d", []byte("{}"))
		}, "{}",
			"PATCH /apis/apps/v1/namespaces/s/daemonsets/d application/strategic-merge-patch+json {}", ""},
		"its pods": {func(c *Client) (string, error) {
			pods, err := c.PodsWith(ctx, "s", map[string]string{"a": "b"})
			return fmt.Sprint(len(pods)), err
		}, `{"kind": "PodList", "apiVersion": "v1", "items": [` + pod + `]}`,
			"GET /api/v1/namespaces/s/pods?labelSelector=a%3Db", "1"},
	} {
		client, requests := answering(t, func(string) (int, string) { return 200, c.answer })
		result, err := c.do(client)
		if err != nil || result != c.result || !slices.Equal(*requests, []string{c.want}) {
			t.Errorf("%s: %q, %v after %q; want %q after %q", name, result, err, *requests, c.result, c.want)
		}
	}
}

// Requests are counted for their client alone, by method and status code.
func TestCount(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`)
	}))
	path := filepath.Join(t.TempDir(), "kubeconfig")
	await.Must(t, os.WriteFile(path, kubeconfig(server.URL), 0o600))
	counted := make([][]string, 2)
	var clients []*Client
	for i := range counted {
		c, err := Connect(Config{Kubeconfig: path, QPS: 100, Burst: 100, Count: func(method, code string) {
			counted[i] = append(counted[i], method+" "+code)
		}})
		await.Must(t, err)
		clients = append(clients, c)
	}
	ctx := Patient(t.Context()) // for slow machines
	_, _ = clients[0].Pod(ctx, "s", "p")
	_, _ = clients[1].NamespaceAnnotations(ctx, "s")
	_ = clients[1].PatchPod(ctx, "s", "p", []byte("{}"))
	server.Close()
	_, _ = clients[0].RuntimeVersion(ctx, "n")
	want := [][]string{{"GET 404", "GET <error>"}, {"GET 404", "PATCH 404"}}
	if !slices.EqualFunc(counted, want, slices.Equal[[]string]) {
		t.Errorf("%q, want %q", counted, want)
	}
}
