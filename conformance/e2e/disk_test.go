package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// A directory that the agent or the plugin writes to is full or read-only. The readiness probe or a kubelet event says
// why, no file is left incomplete, pods outside the mesh start, and everything recovers afterwards.
func TestDisk(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed("agentTimeout=2s")
		r.seen(r.appPod("plain"))
		for _, harm := range []struct {
			name, words string
			begin       func(*cluster.Node, string) (func() error, error)
		}{{"full", "no space left on device", (*cluster.Node).Fill},
			{"read-only", "read-only file system", (*cluster.Node).ReadOnly}} {
			dirs := []string{cluster.ConfDir, cluster.BinDir, cluster.StateDir}
			if r.node.Runtime == cluster.Debian { // only ConfDir differs: the agent writes the primary's file
				dirs = dirs[:1]
			}
			for _, dir := range dirs {
				name := strings.NewReplacer("/", "-", ".", "-").Replace(harm.name + dir)
				resume, err := r.node.Stop(daemonSet, dir)
				resumed := r.until(resume)
				must(r, err)
				switch dir { // remove what the agent must write again
				case cluster.ConfDir:
					r.unchain()
				case cluster.BinDir:
					must(r, os.Remove(r.node.Path(filepath.Join(dir, "istio-pod-network"))))
				}
				undo, err := harm.begin(r.node, dir)
				undone := r.until(undo) // also after an error
				must(r, err)
				resumed()
				if dir == cluster.StateDir {
					r.create(r.meshPod("refused-" + name))
					r.eventually("the kubelet says why the mesh pod does not start", func() bool {
						all := events(r.namespace)
						return strings.Contains(all, "refused-"+name+" FailedCreatePodSandBox") && strings.Contains(all, harm.words)
					})
				} else {
					r.eventually(dir+" is "+harm.name+", says the agent", func() bool {
						_, body := readyz(r.node.Address())
						return strings.Contains(body, "[-] installed") && strings.Contains(body, harm.words)
					})
				}
				r.wholeConfiguration()
				if dir != cluster.BinDir { // without the configured binary the runtime starts no pod
					r.seen(r.appPod("plain-" + name))
				}
				undone()
				r.agentsReady()
				if dir == cluster.StateDir {
					r.throughSidecar("refused-" + name)
				}
				r.create(r.meshPod("after-" + name))
				r.throughSidecar("after-" + name)
			}
		}
	})
}

// wholeConfiguration fails if a file of the runtime's CNI configuration is not valid JSON.
func (r *rig) wholeConfiguration() {
	r.Helper()
	for _, pattern := range []string{"*.conf*", "*/*.conf*"} {
		files, err := filepath.Glob(r.node.Path(filepath.Join(cluster.ConfDir, pattern)))
		must(r, err)
		for _, file := range files {
			if data, err := os.ReadFile(file); err != nil || !json.Valid(data) {
				r.Errorf("%s: %v %s", file, err, data)
			}
		}
	}
}
