package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/blocks"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/mesh"
)

// Names in the pages that are replaced by what a test has.
const (
	istioCharts  = "https://istio-release.storage.googleapis.com/charts"
	registryHost = "registry.example.com"
	pagesImages  = registryHost + "/mesh"
	registryOC   = "image-registry.openshift-image-registry.svc:5000"
	nodeOfPages  = "node-1"
	valuesOfPage = "kubernetesDistribution: Kubernetes\nimage: {registry: " + pagesImages + "}\n"
)

// istioVersions are the versions that the pages install, and upgrade to.
var istioVersions = []string{"1.31.0", "1.31.1"}

// standIns are scripts in place of programs that the test machine does not have. All other programs are real.
var standIns = map[string]string{
	// This docker stores the credentials of a login. Where docker would ask, it uses the reader's name and password.
	"docker": `#!/bin/sh
case $1 in
login)
	user=$READER password=$PASSWORD
	while [ $# -gt 0 ]; do
		case $1 in
		--username) user=$2 ;;
		--password-stdin) read -r password ;;
		esac
		host=$1
		shift
	done
	mkdir -p ~/.docker
	printf '{"auths": {"%s": {"auth": "%s"}}}\n' "$host" "$(printf %s "$user:$password" | base64)" >~/.docker/config.json
	;;
save) cat ~/app.tar ;;
esac
`,
	// This oc is kubectl, except for OpenShift's own commands.
	"oc": `#!/bin/sh
case "$1 $2" in
"get network.config") echo OVNKubernetes ;;
"get route") echo "$REGISTRY_HOST" ;;
"whoami -t") echo "$PASSWORD" ;;
"whoami ") echo "$READER" ;;
"patch configs.imageregistry.operator.openshift.io/cluster" | "policy "*) ;;
*) exec kubectl "$@" ;;
esac
`,
}

// reader pastes the commands of pages into a shell.
type reader struct {
	*rig
	dir, programs string
	replaced      []string // names in the pages, each followed by its replacement
	environment   []string
	said          string // output of the commands
	blocks        int
	calls         map[string]int
}

// newReader returns a reader with a new home directory. helm is helm3 or helm4.
func newReader(r *rig, helm string) *reader {
	r.Helper()
	n := &reader{rig: r, dir: r.TempDir(), programs: r.TempDir(), calls: map[string]int{}}
	must(r, os.Mkdir(filepath.Join(n.dir, "scripts"), 0o755))
	for _, name := range []string{"chart", "conformance", "docs"} {
		path, err := filepath.Abs(filepath.Join(build.Root(), name))
		must(r, err)
		must(r, os.Symlink(path, filepath.Join(n.dir, name)))
	}
	for name, as := range map[string]string{helm: "helm", "kubectl": "kubectl",
		"istio-pod-networkctl": "istio-pod-networkctl"} {
		must(r, os.Symlink(lookUp(name), filepath.Join(n.programs, as)))
	}
	for name, text := range standIns {
		must(r, os.WriteFile(filepath.Join(n.programs, name), []byte(text), 0o755))
	}
	for name, text := range map[string]string{".variables": "", "values.yaml": valuesOfPage} {
		must(r, os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600))
	}
	return n
}

// replaces adds names in the pages to replace. Each is followed by its replacement.
func (n *reader) replaces(names ...string) { n.replaced = append(n.replaced, names...) }

// charts serves Istio's charts in place of Istio's own repository.
func (n *reader) charts() {
	n.Helper()
	dir := n.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(n, err)
	server := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	go func() { _ = server.Serve(listener) }()
	n.Cleanup(func() { must(n, server.Close()) })
	url := "http://" + listener.Addr().String()
	must(n, mesh.Helm{Program: lookUp("helm4"), Bin: isolated.BinDir(), Dir: n.TempDir()}.Repository(dir, url,
		istioVersions...))
	n.replaces(istioCharts, url)
}

// pushed gives nodes the images of this tree, as if they had been pushed to a registry and pulled from it.
func (n *reader) pushed(registry string, on ...*cluster.Node) {
	n.Helper()
	for _, node := range on {
		must(n, node.PullableFrom(registry))
	}
}

// pastes runs every block of some sections of a page, in their order. With again, it repeats a block until it succeeds.
func (n *reader) pastes(page string, again bool, sections ...string) {
	n.Helper()
	all, wrong, err := blocks.Read(page)
	must(n, err)
	if len(wrong) > 0 {
		n.Fatal(wrong)
	}
	for _, section := range sections {
		before := n.blocks
		for _, b := range all {
			if b.Section == section && blocks.PastedOnCluster(page, b) {
				n.paste(b, again)
			}
		}
		if n.blocks == before {
			n.Errorf("%s has no block below %q that is said to be pasted", page, section)
		}
	}
}

// paste runs a block in a new shell that ends at the first command that fails. It has the variables of the block
// before.
func (n *reader) paste(b blocks.Block, again bool) {
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
	script := "set -a; . ~/.variables\n" + strings.NewReplacer(n.replaced...).Replace(blocks.Script(b)) +
		"\nexport -p >~/.variables\n"
	run := func() error {
		ctx, cancel := context.WithTimeout(n.ctx, patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", script)
		cmd.Dir = n.dir
		cmd.Env = append([]string{"PATH=" + n.programs + ":" + os.Getenv("PATH"), "HOME=" + n.dir,
			"KUBECONFIG=" + nodes.Admin()}, n.environment...)
		out, err := cmd.CombinedOutput()
		n.said += string(out)
		if err != nil {
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

// counted logs the number of blocks and calls, and fails if one of the programs was not called.
func (n *reader) counted(programs ...string) {
	n.Helper()
	var calls []string
	for _, name := range slices.Sorted(maps.Keys(n.calls)) {
		calls = append(calls, fmt.Sprint(n.calls[name], " ", name))
	}
	n.Logf("%d blocks of the pages ran: %s", n.blocks, strings.Join(calls, ", "))
	n.note("%d blocks: kubectl %d times, helm %d, istio-pod-networkctl %d", n.blocks, n.calls["kubectl"]+n.calls["oc"],
		n.calls["helm"], n.calls["istio-pod-networkctl"])
	for _, name := range programs {
		if n.calls[name] == 0 {
			n.Errorf("no block has called %s", name)
		}
	}
}
