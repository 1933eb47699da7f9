package e2e

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// dump runs sysdump with these arguments, and returns the files of the archive by name.
func (r *rig) dump(args ...string) map[string]string {
	r.Helper()
	name := filepath.Join(r.TempDir(), "dump.tar.gz")
	out, err := asAdmin("istio-pod-networkctl", append([]string{"sysdump", "--output", name}, args...)...).CombinedOutput()
	if err != nil {
		r.Errorf("sysdump: %v: %s", err, out)
	}
	packed, err := os.Open(name)
	must(r, err)
	defer func() { _ = packed.Close() }()
	unzipped, err := gzip.NewReader(packed)
	must(r, err)
	files := map[string]string{}
	for archive := tar.NewReader(unzipped); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		must(r, err)
		text, err := io.ReadAll(archive)
		must(r, err)
		files[strings.TrimPrefix(h.Name, "istio-pod-network-sysdump/")] = string(text)
	}
}

// traces runs trace for the mesh pod cart-0, from the pod's object in the cluster and live.
func (r *rig) traces() {
	r.Helper()
	var t struct {
		Operator    string
		NotLookedAt []string
		Items       []struct {
			Verdict string
			Ways    []struct{ Landed, OriginalDestination string }
		}
	}
	status := r.toolSays(&t, "trace", r.namespace+"/cart-0", "--to", "192.0.2.1:80")
	if status != 0 || len(t.NotLookedAt) > 0 || !strings.HasPrefix(t.Operator, "ConfigMap ") || len(t.Items) != 1 ||
		len(t.Items[0].Ways) == 0 || t.Items[0].Ways[0].OriginalDestination != "192.0.2.1:80" {
		r.Errorf("status %d: %+v", status, t)
	}
	r.tracesLive("app", "192.0.2.1:80", "127.0.0.1:15001")
	r.tracesLive("proxy", "192.0.2.1:80", "192.0.2.1:80")
	r.tracesLive("outside", "pod:8080", ":15006")
}

// tracesLive runs trace --live for a packet of the pod cart-0. The kernel must report what the tool predicts, and the
// packet must end at an address with that suffix.
func (r *rig) tracesLive(from, to, end string) {
	r.Helper()
	status, t := r.liveTrace(r.namespace+"/cart-0", "--from", from, "--to", to)
	if status != 0 || len(t.Items) != 1 || !t.Items[0].Kernel.Looked || !t.Items[0].Kernel.Agrees ||
		len(t.Items[0].Kernel.Steps) == 0 || !strings.HasSuffix(t.Items[0].Kernel.End.To, end) {
		r.Errorf("from %s to %s: status %d: %+v", from, to, status, t)
	}
	if left := r.output(r.inPod("cart-0", "nft", "list", "tables")); strings.Contains(left, "istio-pod-network-look") {
		r.Errorf("left in the pod: %s", left)
	}
}

// tracedLive is the JSON output of trace --live.
type tracedLive struct {
	Items []struct {
		Kernel struct {
			Looked, Agrees bool
			Detail         string
			Steps          []struct{ Chain, Verdict string }
			End            struct{ Where, To string }
		}
	}
}

// liveTrace runs trace --live for a pod. It repeats it if the kernel of a busy machine has not reported a packet in
// time.
func (r *rig) liveTrace(args ...string) (status int, t tracedLive) {
	r.Helper()
	r.soon(func() bool {
		t = tracedLive{}
		status = r.toolSays(&t, append([]string{"trace", "--live"}, args...)...)
		return len(t.Items) != 1 || t.Items[0].Kernel.Looked || !tooSlow(t.Items[0].Kernel.Detail)
	})
	return status, t
}

// dumpsSystem checks archives of a healthy installation with the mesh pod cart-0. One has everything, without read
// errors and without a token. A redacted one has no name of a node, the pod or its namespace.
func (r *rig) dumpsSystem() {
	r.Helper()
	chosen := "--pod=" + r.namespace + "/cart-0"
	files := r.dump(chosen)
	has := func(name, text string) {
		r.Helper()
		if !strings.Contains(files[name], text) {
			r.Errorf("%s has no %q: %.2000s", name, text, files[name])
		}
	}
	has("objects/daemonsets.yaml", "name: istio-pod-network-agent")
	has("objects/configmaps.yaml", "network.json")
	has("objects/validatingadmissionpolicies.yaml", "istio-pod-network-marks")
	has("objects/nodes.yaml", nodes.Nodes[0].Name)
	has("pods/"+r.namespace+"/pods.yaml", "name: cart-0")
	has("pods/"+r.namespace+"/cart-0/record.json", `"looked": true`)
	has("pods/"+r.namespace+"/cart-0/rules.json", `"does": "meta l4proto, cmp, immediate, redir"`)
	has("versions.json", `"pluginSHA256"`)
	agents := map[string]string{}
	for name := range files {
		if dir, base := path.Split(name); base == "node.json" {
			agents[strings.Split(name, "/")[1]] = dir
		}
	}
	for _, n := range nodes.Nodes {
		has(agents[n.Name]+"node.json", `"ready": true`)
		has(agents[n.Name]+"files.json", `istio-pod-network`)
		has(agents[n.Name]+"files.json", `"plugins"`)
		has(agents[n.Name]+"agent.log", "level=info")
		has(agents[n.Name]+"metrics.txt", "\n# HELP ")
	}
	has(agents[r.node.Name]+"files.json", `\"name\":\"cart-0\"`) // the record
	for name, text := range files {
		if strings.Contains(text, "eyJ") {
			r.Errorf("%s has a token: %s", name, text)
		}
	}
	for name, text := range r.dump("--redact", chosen) {
		for _, never := range []string{nodes.Nodes[0].Name, nodes.Nodes[1].Name, r.namespace, "cart-0"} {
			if i := strings.Index(name+"\n"+text, never); i >= 0 {
				all := name + "\n" + text
				r.Errorf("%s has %s: %s", name, never, all[max(0, i-200):min(len(all), i+200)])
			}
		}
	}
}
