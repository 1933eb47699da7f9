package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/blocks"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/mesh"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// The pages that lead from nothing to a verified mesh.
const (
	readme         = "README.md"
	gettingStarted = "docs/getting-started-istio.md"
	onOpenShift    = "docs/getting-started-openshift.md"
)

// What stands in the pages for what a reader has, and what the pages' own is here.
const (
	istioCharts  = "https://istio-release.storage.googleapis.com/charts"
	istioVersion = "1.31.0"
	registry     = "registry.example.com/mesh"
	registryOC   = "image-registry.openshift-image-registry.svc:5000/mesh-images"
)

// standIns are the programs of pages that no machine of ours has, and what they do here: the images are on the nodes
// already, and there is nobody to log in to. All else is what it is.
var standIns = map[string]string{
	"docker": `#!/bin/sh
case $1 in login) cat >/dev/null; mkdir -p ~/.docker; echo '{"auths": {}}' >~/.docker/config.json ;; esac
`,
	"scripts/images.sh": "#!/bin/sh\n",
	// oc is kubectl but for what OpenShift alone has.
	"oc": `#!/bin/sh
case "$1 $2" in
"get network.config") echo OVNKubernetes ;;
"get route") echo registry.example.com ;;
"patch configs.imageregistry.operator.openshift.io/cluster" | "policy "* | "whoami "*) ;;
*) exec kubectl "$@" ;;
esac
`,
}

// elsewhere are the commands of README.md that are stages of .ci/run: they are no steps on a cluster.
var elsewhere = []string{"make demo", "make test"}

// newcomer is somebody who knows Kubernetes and Istio, and pastes what the pages say into a shell.
type newcomer struct {
	*rig
	dir, programs string
	names         *strings.Replacer // the names that are replaced in the pages
	blocks        int
	calls         map[string]int
}

// newNewcomer is one with a home of their own, who calls some more names of the pages otherwise: each is followed by
// what it is replaced by.
func newNewcomer(r *rig, names ...string) *newcomer {
	r.Helper()
	n := &newcomer{rig: r, dir: r.TempDir(), programs: r.TempDir(), calls: map[string]int{}}
	n.names = strings.NewReplacer(append([]string{istioCharts, n.charts()}, names...)...)
	must(r, os.Mkdir(filepath.Join(n.dir, "scripts"), 0o755))
	for _, name := range []string{"chart", "conformance", "docs"} {
		path, err := filepath.Abs(filepath.Join(build.Root(), name))
		must(r, err)
		must(r, os.Symlink(path, filepath.Join(n.dir, name)))
	}
	for name, as := range map[string]string{"helm4": "helm", "kubectl": "kubectl",
		"istio-pod-networkctl": "istio-pod-networkctl"} {
		must(r, os.Symlink(lookUp(name), filepath.Join(n.programs, as)))
	}
	for name, text := range standIns {
		path := filepath.Join(n.programs, name)
		if strings.Contains(name, "/") {
			path = filepath.Join(n.dir, name)
		}
		must(r, os.WriteFile(path, []byte(text), 0o755))
	}
	must(r, os.WriteFile(filepath.Join(n.dir, ".variables"), nil, 0o600))
	return n
}

// charts serves Istio's, and returns their address.
func (n *newcomer) charts() string {
	n.Helper()
	dir := n.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(n, err)
	server := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	go func() { _ = server.Serve(listener) }()
	n.Cleanup(func() { must(n, server.Close()) })
	url := "http://" + listener.Addr().String()
	must(n, mesh.Helm{Program: lookUp("helm4"), Bin: isolated.BinDir(), Dir: n.TempDir()}.Repository(dir, url,
		istioVersion))
	return url
}

// images are on these nodes what was pushed to a registry, and Istio's.
func (n *newcomer) images(registry string, on ...*cluster.Node) {
	n.Helper()
	pilot, proxy, err := mesh.Images(isolated.BinDir(), nodes.Dir)
	must(n, err)
	shop := filepath.Join(nodes.Dir, "shop.tar")
	must(n, cluster.Image(shop, "docker.io/library/shop:"+version(), "65532:65532",
		[]cluster.File{{Source: filepath.Join(isolated.BinDir(), "shop"), Path: "shop"}}, "/shop"))
	for _, node := range on {
		for _, archive := range []string{pilot, proxy, shop} {
			must(n, node.Import(archive))
		}
		must(n, node.PullableFrom(registry))
	}
}

// pastes runs every block of sections of a page, in their order; without a section those of the whole page. What the
// page says may be asked again is asked until it is as the page says.
func (n *newcomer) pastes(page string, again bool, sections ...string) {
	n.Helper()
	all, wrong, err := blocks.Read(page)
	must(n, err)
	if len(wrong) > 0 {
		n.Fatal(wrong)
	}
	for _, section := range sections {
		before := n.blocks
		for _, b := range all {
			if b.Section == section {
				n.paste(b, again)
			}
		}
		if n.blocks == before {
			n.Errorf("%s has no block below %q", page, section)
		}
	}
}

// paste runs a block. A shell of its own goes on with the variables of the one before, so that it ends with the first
// command that fails.
func (n *newcomer) paste(b blocks.Block, again bool) {
	n.Helper()
	file, err := blocks.Parse(b.Place, b.Text)
	must(n, err)
	if left := blocks.Skipped(b, blocks.Programs(file)); len(left) > 0 || b.NotRun+b.RunBy != "" {
		n.Fatalf("%s: left out: %q%s%s", b.Place, left, b.NotRun, b.RunBy)
	}
	for _, name := range b.StandIns {
		if program, _, _ := strings.Cut(name, " "); standIns[program] == "" {
			n.Fatalf("%s: nothing stands for %s", b.Place, name)
		}
	}
	script := "set -a; . ~/.variables\n" + n.names.Replace(blocks.Script(b)) + "\nexport -p >~/.variables\n"
	run := func() error {
		ctx, cancel := context.WithTimeout(n.ctx, patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", script)
		cmd.Dir = n.dir
		cmd.Env = []string{"PATH=" + n.programs + ":" + os.Getenv("PATH"), "HOME=" + n.dir, "KUBECONFIG=" + nodes.Admin()}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", b.Place, err, out)
		}
		return nil
	}
	if again {
		n.succeeds(b.Place+" is as it says", run)
	} else if err := run(); err != nil {
		pods, _ := kubectl("get", "pods,events", "--all-namespaces", "--output=wide").CombinedOutput()
		n.Fatalf("%v\nof\n%s\n%s", err, script, pods)
	}
	n.blocks++
	for name, count := range blocks.Calls(file) {
		n.calls[name] += count
	}
}

// counted prints what was pasted, and fails if the programs that matter were not among it.
func (n *newcomer) counted() {
	n.Helper()
	var calls []string
	for _, name := range slices.Sorted(maps.Keys(n.calls)) {
		calls = append(calls, fmt.Sprint(n.calls[name], " ", name))
	}
	n.Logf("%d blocks of the pages ran: %s", n.blocks, strings.Join(calls, ", "))
	n.note("%d blocks: kubectl %d times, helm %d, istio-pod-networkctl %d", n.blocks, n.calls["kubectl"]+n.calls["oc"],
		n.calls["helm"], n.calls["istio-pod-networkctl"])
	for _, name := range []string{"kubectl", "helm", "istio-pod-networkctl"} {
		if n.calls[name] == 0 {
			n.Errorf("no block has called %s", name)
		}
	}
}

// leaves removes in the end what the pages leave, or what a page has left that failed; and before, what tests have left
// that came earlier, of whose names a cluster of a newcomer has none.
func (n *newcomer) leaves(namespaces ...string) {
	remove := func() {
		n.output(kubectl(append([]string{"delete", "namespace", "--ignore-not-found", "--timeout=3m"}, namespaces...)...))
	}
	remove()
	n.Cleanup(func() {
		if n.Failed() {
			n.uninstalled()
		}
		remove()
		n.output(kubectl("delete", "--ignore-not-found", "-f", mesh.Helm{Bin: isolated.BinDir()}.CRDs()))
	})
}

// mesh namespaces of the pages, and the controller's own, which has a secret then.
var pagesNamespaces = []string{"shop", "outside", "istio-ingress", "istio-system", system}

// Whoever knows Kubernetes and Istio, and nothing of this, gets from README.md to a verified mesh by pasting alone, and
// back: on a cluster as make cluster brings it up, one node of which is in the shape that Kind gives it.
func TestNewcomer(t *testing.T) {
	r := newRig(t)
	r.uninstalled()
	r.shapedAsKind()
	n := newNewcomer(r, "kubernetesDistribution=Kubernetes", "kubernetesDistribution=Kind")
	n.leaves(pagesNamespaces...)
	n.images(registry, nodes.Nodes...)
	n.readsTheRest()
	n.pastes(readme, false, "On a cluster")
	n.pastes(gettingStarted, false, "Versions", "Kubernetes")
	n.pastes(gettingStarted, true, "Verify")
	n.pastes(gettingStarted, false, "Taking it away")
	n.counted()
}

// readsTheRest fails if README.md has commands that are neither steps on a cluster nor stages of .ci/run.
func (n *newcomer) readsTheRest() {
	n.Helper()
	all, _, err := blocks.Read(readme)
	must(n, err)
	stages, err := os.ReadFile(filepath.Join(build.Root(), ".ci", "run"))
	must(n, err)
	for _, b := range all {
		if b.Section == "On a cluster" {
			continue
		}
		for line := range strings.Lines(b.Text) {
			command, _, _ := strings.Cut(line, "#")
			command = strings.TrimSpace(command)
			if command != "" && (!slices.Contains(elsewhere, command) || !strings.Contains(string(stages), " "+command)) {
				n.Errorf("%s: nothing runs %q", b.Place, command)
			}
		}
	}
}

// kindnet is what kindnetd writes as 10-kindnet.conflist, for the pods of a node.
const kindnet = `{
  "cniVersion": "0.3.1",
  "name": "kindnet",
  "plugins": [
  {
    "type": "ptp",
    "ipMasq": false,
    "ipam": {
      "type": "host-local",
      "dataDir": "/run/cni-ipam-state",
      "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
      "ranges": [[{"subnet": %q}], [{"subnet": %q}]]
    },
    "mtu": 1500
  },
  {
    "type": "portmap",
    "capabilities": {"portMappings": true}
  }
  ]
}
`

// shapedAsKind gives the rig's node the network of Kind's nodes, with the plugins of that, until the end of the test.
// One stands for portmap, which has nothing to do here.
func (r *rig) shapedAsKind() {
	r.Helper()
	primary, own := []byte(r.node.Primary(cluster.DualStack)), r.node.Path(cluster.ConfDir+"/10-kindnet.conflist")
	plugins := map[string]string{"ptp": "ptp", "portmap": "tuning"}
	r.Cleanup(func() {
		must(r, replace(r.node.Conflist(), primary))
		must(r, os.Remove(own))
		for name := range plugins {
			must(r, os.Remove(r.node.Path(cluster.BinDir+"/"+name)))
		}
		must(r, r.node.RemoveBridges())
		must(r, r.node.Restart("containerd"))
		r.healthy()
	})
	for name, program := range plugins {
		must(r, os.Symlink(filepath.Join(isolated.BinDir(), program), r.node.Path(cluster.BinDir+"/"+name)))
	}
	must(r, replace(own, fmt.Appendf(nil, kindnet, r.node.Pods4(), r.node.Pods6())))
	must(r, os.Remove(r.node.Conflist()))
	must(r, r.node.RemoveBridges()) // its addresses are the pods' gateway
	must(r, r.node.Restart("containerd"))
	r.healthy()
}

// openShiftNewcomer does the same by the page for OpenShift, on a node in its layout, with its constraints in force. oc
// is kubectl.
func openShiftNewcomer(r *rig) {
	r.uninstalled()
	r.alone()
	n := newNewcomer(r)
	n.leaves(append(pagesNamespaces, "mesh-images")...)
	n.images(registryOC, r.node)
	r.constrained()
	r.allocates()
	n.pastes(gettingStarted, false, "Versions")
	n.pastes(onOpenShift, false, "Installation")
	n.pastes(gettingStarted, true, "Verify")
	n.pastes(gettingStarted, false, "Taking it away")
	n.counted()
}

// alone makes the rig's node the only one that pods come to, the agents' included, until the end of the test.
func (r *rig) alone() {
	r.Helper()
	for _, other := range nodes.Nodes {
		r.Cleanup(func() {
			r.output(kubectl("uncordon", other.Name))
			r.output(kubectl("label", "node", other.Name, "type-"))
		})
		r.output(kubectl("cordon", other.Name))
		r.output(kubectl("label", "node", other.Name, "type=virtual-kubelet")) // no host, so no agent
	}
}

// allocates gives new namespaces what OpenShift gives a project, until the end of the test.
func (r *rig) allocates() {
	r.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	r.Cleanup(func() { cancel(); must(r, <-done) })
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": allocated}})
	must(r, err)
	changes, err := nodes.Client.CoreV1().Namespaces().Watch(ctx, metav1.ListOptions{})
	must(r, err)
	go func() {
		for event := range changes.ResultChan() {
			namespace, is := event.Object.(*corev1.Namespace)
			if !is || event.Type != watch.Added || !slices.Contains(pagesNamespaces, namespace.Name) {
				continue
			}
			if _, err := nodes.Client.CoreV1().Namespaces().Patch(ctx, namespace.Name, types.MergePatchType, patch,
				metav1.PatchOptions{}); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
}
