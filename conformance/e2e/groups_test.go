package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// recipe returns the pod settings that docs/injection.md has for an init container before the sidecar.
func (r *rig) recipe() (pod *corev1.Pod) {
	r.Helper()
	block := r.documented("injection.md", "Let init containers connect before the sidecar")
	must(r, yaml.UnmarshalStrict([]byte(block), &pod))
	if len(pod.Annotations) != 1 || len(pod.Spec.InitContainers) != 1 {
		r.Fatalf("not the recipe in docs/injection.md: %q", block)
	}
	return pod
}

// documented returns the first YAML block of a section of a page in docs.
func (r *rig) documented(page, section string) string {
	r.Helper()
	text, err := os.ReadFile(filepath.Join(build.Root(), "docs", page))
	must(r, err)
	_, rest, _ := strings.Cut(string(text), "\n## "+section+"\n")
	_, block, _ := strings.Cut(rest, "```yaml\n")
	block, _, found := strings.Cut(block, "```")
	if !found || strings.Contains(block, "\n## ") {
		r.Fatalf("docs/%s has no YAML in %q", page, section)
	}
	return block
}

// migrating returns a mesh pod with DNS capture and an init container that must reach the peer before the sidecar runs.
func (r *rig) migrating(name string, migrate corev1.Container, targets ...string) *corev1.Pod {
	pod := r.meshPod(name)
	container(pod, "istio-proxy").Env = []corev1.EnvVar{{Name: "ISTIO_META_DNS_CAPTURE", Value: "true"}}
	container(pod, "app").Args = []string{target4, target6, dns}
	r.before(pod, migrate, targets...)
	return pod
}

// before adds an init container to a pod. It ends when all targets have answered.
func (r *rig) before(pod *corev1.Pod, migrate corev1.Container, targets ...string) {
	migrate.Image, migrate.ImagePullPolicy = podImage, corev1.PullNever
	migrate.Command = []string{"/podprogram", "call", "-name=" + r.namespace + "/" + pod.Name + "/" + migrate.Name}
	migrate.Args = targets
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, migrate)
}

// An init container before the sidecar reaches the network and DNS with a group of its own. docs/injection.md describes
// this for one pod and for a whole mesh. The app does not have the group and goes through the sidecar. Without the
// group, the init container's connections are refused.
func TestOwnerGroup(t *testing.T) {
	r := newRig(t)
	r.installed()
	recipe := r.recipe()
	migrate := recipe.Spec.InitContainers[0]
	pods := map[string]*corev1.Pod{}
	for _, name := range []string{"annotated", "by-mesh-config"} {
		pods[name] = r.migrating(name, migrate, target4, target6, dns)
	}
	maps.Copy(pods["annotated"].Annotations, recipe.Annotations)
	for _, group := range recipe.Annotations {
		proxy := container(pods["by-mesh-config"], "istio-proxy")
		proxy.Env = append(proxy.Env, corev1.EnvVar{Name: "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", Value: group})
	}
	migrate.SecurityContext = restricted(*migrate.SecurityContext.RunAsUser)
	pods["without"] = r.migrating("without", migrate, target4)
	maps.Copy(pods["without"].Annotations, recipe.Annotations)
	for _, pod := range pods {
		r.create(pod)
	}
	for _, name := range []string{"annotated", "by-mesh-config"} {
		r.throughSidecar(name)
		r.hears(name, dns, "sidecar-dns")
		r.noLeak(name)
		r.marked(name)
		log := r.said(name, migrate.Name)
		for _, target := range []string{target4, target6, dns} {
			if !strings.Contains(log, target+" answer peer\n") {
				t.Errorf("%s of %s was not answered by the peer:\n%s", migrate.Name, name, log)
			}
		}
		r.control += outside.reached(r.namespace, name+"/"+migrate.Name)
	}
	r.eventually("the connections of an init container without the group are refused", func() bool {
		return strings.Count(r.says("without", migrate.Name), target4+" error dial tcp "+strings.TrimPrefix(target4, "tcp:")+
			": connect: connection refused\n") >= enough
	})
	if n := outside.reached(r.namespace, "without/"+migrate.Name); n > 0 {
		t.Errorf("an init container without the group has reached the peer %d times", n)
	}
}
