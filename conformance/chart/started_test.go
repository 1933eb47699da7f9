package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/blocks"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// startedPages are the page with which all readers begin, and those of single platforms.
var startedPages = []string{"getting-started-istio.md", "getting-started-eks.md", "getting-started-gke.md",
	"getting-started-aks.md", "getting-started-openshift.md"}

// session returns the commands of a page's section, as a reader would paste them.
func session(t *testing.T, page, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(readText(t, filepath.Join(build.Root(), "docs", page)), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %q", page, heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	all, wrong := blocks.Of("docs/"+page, text)
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	var commands strings.Builder
	for _, b := range all {
		commands.WriteString(b.Text)
	}
	return commands.String()
}

// Programs that replace those of the page's reader. helm renders what it should install, with the real Helm and the
// charts of Istio's module. It also checks that Helm has no complaint about a chart of this tree with these values. The
// others print something if a command needs it.
const (
	standInHelm = `#!/bin/bash
set -euo pipefail
case $1 in
install | upgrade) shift ;;
"get") echo 'pilot: {}'; exit ;;
list) echo '- app_version: 1.30.1'; exit ;;
*) exit 0 ;;
esac
version= istio= chart= args=() values=()
while [ $# -gt 0 ]; do
	case $1 in
	--version) version=$2; shift ;;
	--install) ;;
	--reuse-values | --reset-then-reuse-values) echo "values of another version of a chart: $1" >&2; exit 1 ;;
	istio/base | istio/gateway) istio=$1; args+=("$MANIFESTS/charts/${1#istio/}") ;;
	istio/istiod) istio=$1; args+=("$MANIFESTS/charts/istio-control/istio-discovery") ;;
	istio/*) echo "no such chart of Istio's: $1" >&2; exit 1 ;;
	./*) chart=$1; args+=("$1") ;;
	-f | --set) values+=("$1" "$2"); args+=("$1" "$2"); shift ;;
	*) args+=("$1") ;;
	esac
	shift
done
if [ -n "$istio" ] && [[ ! $version =~ ^1\.[0-9]+\.[0-9]+$ ]]; then
	echo "$istio in the version '$version'" >&2
	exit 1
fi
[ -z "$chart" ] || "$HELM" lint --strict "$chart" "${values[@]}"
n=$(ls "$RENDERED" | wc -l)
"$HELM" template "${args[@]}" >"$RENDERED/$(printf %02d "$n")-${args[0]}"
`
	standIn = "#!/bin/sh\ncat >/dev/null # whoever writes to it must not fail\necho stand-in\n"
)

// rendered has the manifests of a session's releases, by the release's name; of each the last.
type rendered map[string]string

// renderPasted runs the sections' commands in a shell that ends at the first failure.
func renderPasted(t *testing.T, helm string, sections ...string) rendered {
	t.Helper()
	dir, programs, out := t.TempDir(), t.TempDir(), t.TempDir()
	for _, name := range []string{"chart", "docs", "conformance"} {
		target, err := filepath.Abs(filepath.Join(build.Root(), name))
		if err == nil {
			err = os.Symlink(target, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(programs, "helm"):    standInHelm,
		filepath.Join(programs, "kubectl"): standIn, filepath.Join(programs, "oc"): standIn,
		filepath.Join(programs, "aws"): standIn, filepath.Join(programs, "gcloud"): standIn,
		filepath.Join(programs, "az"): standIn, filepath.Join(programs, "istio-pod-networkctl"): standIn,
		filepath.Join(programs, "docker"):          standIn,
		filepath.Join(dir, "scripts", "images.sh"): standIn,
	} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := "set -euo pipefail\n"
	for _, section := range sections {
		script += session(t, pageOf(section), headingOf(section))
	}
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "HOME="+dir, "RENDERED="+out,
		"HELM="+filepath.Join(isolated.BinDir(), helm), "MANIFESTS="+filepath.Join(isolated.BinDir(), "istio-manifests"))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\nof\n%s", err, text, script)
	}
	all := rendered{}
	files, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files { // in the order of their numbers
		_, release, _ := strings.Cut(f.Name(), "-")
		all[release] = readText(t, filepath.Join(out, f.Name()))
	}
	return all
}

// pageOf returns the page of a section. A section is named by its heading; on other pages than the first one, by page
// and heading.
func pageOf(section string) string {
	if page, _, elsewhere := strings.Cut(section, "#"); elsewhere {
		return page
	}
	return startedPages[0]
}

func headingOf(section string) string { return section[strings.Index(section, "#")+1:] }

// paths are the sequences of sections that a reader follows, and their expected results.
var paths = []struct {
	name, registry string
	sections       []string
	platform       string
	secrets        []string
	istiod         string // the release that injects in the end
}{
	{"Kubernetes", "registry.example.com/mesh", []string{"Choose the versions", "Install on Kubernetes", "Verify the mesh",
		"Move to another revision of Istio", "Remove everything"}, "", []string{"regcred"}, "istiod-1-31-1"},
	{"existing", "registry.example.com/mesh", []string{"Choose the versions", "Install on Kubernetes",
		"Change an Istio that is already installed"}, "", nil, "istiod"},
	{"EKS", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/mesh", []string{"Choose the versions",
		"getting-started-eks.md#Install", "Verify the mesh", "Remove everything"}, "", nil, "istiod"},
	{"GKE", "europe-west1-docker.pkg.dev/my-project/mesh", []string{"Choose the versions",
		"getting-started-gke.md#Install", "Verify the mesh", "Remove everything"}, "", nil, "istiod"},
	{"AKS", "myregistry.azurecr.io/mesh", []string{"Choose the versions",
		"getting-started-aks.md#Install", "Verify the mesh",
		"getting-started-aks.md#Use the Istio add-on of AKS", "Remove everything"}, "", nil, "istiod"},
	{"OpenShift", "image-registry.openshift-image-registry.svc:5000/mesh-images", []string{"Choose the versions",
		"getting-started-openshift.md#Install", "Verify the mesh", "Remove everything"}, "openshift", nil, "istiod"},
}

// The page's commands install what the page says, in each of its paths, with either Helm.
func TestGettingStarted(t *testing.T) {
	followed := map[string]bool{}
	for _, p := range paths {
		for _, section := range p.sections {
			followed[pageOf(section)+"#"+headingOf(section)] = true
		}
	}
	for _, page := range startedPages {
		text := readText(t, filepath.Join(build.Root(), "docs", page))
		for _, heading := range regexp.MustCompile("(?m)^## (.*)$").FindAllStringSubmatch(text, -1) {
			commands := session(t, page, heading[1])
			if strings.Contains(commands, "helm ") && !followed[page+"#"+heading[1]] {
				t.Errorf("%s#%s has commands that no way of this test follows:\n%s", page, heading[1], commands)
			}
		}
	}
	knowIstio(t)
	both(t, func(t *testing.T, helm string) {
		for _, p := range paths {
			t.Run(p.name, func(t *testing.T) {
				all := renderPasted(t, helm, p.sections...)
				t.Logf("rendered: %q", slices.Sorted(maps.Keys(all)))
				agent := daemonSet(t, all[name])
				if want := p.registry + "/istio-pod-network-agent:" + version(); agent.Image != want {
					t.Errorf("the agent's image is %s, want %s", agent.Image, want)
				}
				taken(t, strings.ReplaceAll(all[name], "namespace: outside", "namespace: "+system))
				injects(t, all[p.istiod], p.registry, p.platform, p.secrets)
				shopIsTaken(t, all["shop"], p.registry)
				shopIsTaken(t, all["visitor"], p.registry)
				if !strings.Contains(all["gateway"], "  type: ClusterIP\n") {
					t.Error("the gateway's service is of another type")
				}
				if p.platform == "" && !regexp.MustCompile(`(?s)securityContext:\n +seccompProfile:\n`+
					` +type: RuntimeDefault\n +sysctls:\n +- name: net.ipv4.ip_unprivileged_port_start\n +value: "0"\n`).MatchString(
					all["gateway"]) {
					t.Errorf("the gateway is not as Pod Security restricted wants it:\n%s", all["gateway"])
				}
			})
		}
	})
}

// kinds are Istio's kinds of which the shop has objects.
var kinds = []string{"authorizationpolicies.security.istio.io", "gateways.networking.istio.io",
	"peerauthentications.security.istio.io", "sidecars.networking.istio.io", "virtualservices.networking.istio.io"}

// knowIstio defines these kinds and the page's namespaces in the API server.
func knowIstio(t *testing.T) {
	t.Helper()
	var crds strings.Builder
	all := readText(t, filepath.Join(isolated.BinDir(), "istio-manifests", "charts", "base", "files", "crd-all.gen.yaml"))
	for document := range strings.SplitSeq(all, "\n---\n") {
		if slices.ContainsFunc(kinds, func(k string) bool { return strings.Contains(document, "\n  name: "+k+"\n") }) {
			crds.WriteString(document + "\n---\n")
		}
	}
	for _, args := range [][]string{{"apply", "--server-side", "-f", "-"},
		{"wait", "--for=condition=Established", "--timeout=5m", "-f", "-"}} {
		if _, errs, err := program([]byte(crds.String()), "kubectl", args...); err != nil {
			t.Fatalf("kubectl %q: %v %s", args, err, errs)
		}
	}
	apply(t, `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Namespace
metadata: {name: outside}
`)
}

// injects fails the test unless that istiod injects our wait, with that platform and those pull secrets.
func injects(t *testing.T, manifests, registry, platform string, secrets []string) {
	t.Helper()
	var config corev1.ConfigMap
	var values struct {
		Global struct {
			ImagePullSecrets []string
			Platform         string
		}
		Pilot                  struct{ CNI struct{ Enabled bool } }
		SidecarInjectorWebhook struct {
			DefaultTemplates []string
			Templates        map[string]string
		}
	}
	for _, o := range objects(t, manifests) {
		if o.GetKind() == "ConfigMap" && strings.HasPrefix(o.GetName(), "istio-sidecar-injector") {
			find(t, manifests, "ConfigMap", o.GetName(), &config)
		}
	}
	// A chart's null is not in the values. Unknown values do not matter.
	if err := json.Unmarshal([]byte(config.Data["values"]), &values); err != nil {
		t.Fatalf("%v in %q", err, config.Data["values"])
	}
	var operator struct {
		Templates        map[string]string
		DefaultTemplates []string
	}
	if err := yaml.Unmarshal([]byte(config.Data["config"]), &operator); err != nil {
		t.Fatal(err)
	}
	const template = "istio-pod-network-wait"
	want := "image: " + registry + "/istio-pod-network-plugin:" + version() + "\n"
	if !slices.Equal(operator.DefaultTemplates, []string{"sidecar", template}) ||
		!strings.Contains(operator.Templates[template], want) {
		t.Errorf("templates %q, %s, want %s", operator.DefaultTemplates, operator.Templates[template], want)
	}
	if !slices.Equal(values.Global.ImagePullSecrets, secrets) {
		t.Errorf("pull secrets of injected pods %q, want %q", values.Global.ImagePullSecrets, secrets)
	}
	var istiod appsv1.Deployment
	for _, o := range objects(t, manifests) {
		if o.GetKind() == "Deployment" {
			find(t, manifests, "Deployment", o.GetName(), &istiod)
		}
	}
	environment := istiod.Spec.Template.Spec.Containers[0].Env
	named := slices.IndexFunc(environment, func(e corev1.EnvVar) bool { return e.Name == "PLATFORM" })
	if named < 0 || environment[named].Value != platform {
		t.Errorf("PLATFORM is not %q in %+v", platform, environment)
	}
	cni := map[string]string{"": "default", "openshift": "multus"}[platform]
	if !strings.Contains(manifests, fmt.Sprintf(`"provider": %q`, cni)) {
		t.Errorf("the provider of the CNI is not %s", cni)
	}
}

// shopIsTaken fails the test unless the API server accepts the whole release of the shop, and its pods comply with Pod
// Security restricted.
func shopIsTaken(t *testing.T, manifests, registry string) {
	t.Helper()
	taken(t, manifests)
	deployments := 0
	for _, o := range objects(t, manifests) {
		if o.GetKind() != "Deployment" {
			continue
		}
		var d appsv1.Deployment
		find(t, manifests, "Deployment", o.GetName(), &d)
		deployments++
		if image := d.Spec.Template.Spec.Containers[0].Image; image != registry+"/shop:"+version() {
			t.Errorf("%s has the image %s", d.Name, image)
		}
		pod := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: d.Spec.Template.ObjectMeta,
			Spec: d.Spec.Template.Spec}
		pod.Name, pod.Namespace = d.Name, "shop"
		pod.Spec.ServiceAccountName = "" // it does not exist here
		data, err := yaml.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		taken(t, string(bytes.TrimSpace(data)))
	}
	if deployments == 0 {
		t.Errorf("no pods in\n%s", manifests)
	}
}
