package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// releaseEnv is the environment variable in which scripts/e2e.sh passes the directory with the last release's images
// and chart, rebuilt from its commit.
const releaseEnv = "E2E_RELEASE"

// published is an entry of docs/releases.json.
type published struct {
	Version, Commit string
	Files           map[string]string
}

// lastRelease returns the newest release. It skips the test if a shallow clone does not have the release's commit.
func lastRelease(t *testing.T) published {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(build.Root(), "docs", "releases.json"))
	must(t, err)
	var list struct{ Releases []published }
	must(t, json.Unmarshal(text, &list))
	if len(list.Releases) == 0 {
		t.Fatal("docs/releases.json has no release")
	}
	last := list.Releases[0]
	if os.Getenv(releaseEnv) == "" {
		git := func(args ...string) (string, error) {
			out, err := exec.Command("git", append([]string{"-C", build.Root()}, args...)...).Output()
			return strings.TrimSpace(string(out)), err
		}
		_, lacking := git("cat-file", "-e", last.Commit+"^{commit}")
		if shallow, _ := git("rev-parse", "--is-shallow-repository"); lacking != nil && shallow == "true" {
			t.Skipf("this shallow clone does not have commit %s of %s; get it by: git fetch --unshallow", last.Commit,
				last.Version)
		}
		t.Fatalf("%s: %s was not built again; start the tests with make e2e", releaseEnv, last.Version)
	}
	return last
}

// file returns the path of a file of the release. The test fails unless its checksum is the published one.
func (p published) file(t testing.TB, part, rest string) string {
	t.Helper()
	name := part + "-" + p.Version + rest
	path := filepath.Join(os.Getenv(releaseEnv), name)
	data, err := os.ReadFile(path)
	must(t, err)
	if sum := fmt.Sprintf("%x", sha256.Sum256(data)); sum != p.Files[name] {
		t.Fatalf("%s, built from commit %s, has the checksum %s, and in docs/releases.json it is %q", name, p.Commit, sum,
			p.Files[name])
	}
	return path
}

// goesOn waits until the sidecar of a pod has served more outbound calls of its app, and checks an inbound one.
func (r *rig) goesOn(name string) {
	r.Helper()
	served := func() int { return strings.Count(r.says(name, "app"), " answer sidecar-outbound ") }
	before := served()
	r.eventually("the sidecar of "+name+" serves it as before", func() bool { return served() >= before+enough })
	r.answersFrom("sidecar-inbound", r.pod(name), 8080)
}

// The last release is rebuilt from its commit with its own release command, and equals what was published. It is
// installed with its own chart, upgraded to this tree and rolled back. Meanwhile mesh pods with the init wait of either
// version come and go, and others stay. This tree's istio-pod-networkctl works with the agents of both, and lists what
// those of the release do not know.
func TestUpgradeFromRelease(t *testing.T) {
	last := lastRelease(t)
	r := newRig(t)
	r.uninstalled()
	for _, image := range []string{"istio-pod-network-agent", "istio-pod-network-plugin"} {
		archive := last.file(t, image, "-oci.tar")
		for _, n := range nodes.Nodes {
			must(r, n.Import(archive))
		}
	}
	r.output(helm("install", release, last.file(t, release, ".tgz"), "--create-namespace", "--wait", waits()))
	r.agentsReady()
	r.runsVersion(last.Version)
	r.seen(r.appPod("plain"))
	var stay []string
	stays := func(version string) {
		pod := r.meshPod("of-" + strings.ReplaceAll(version, ".", "-"))
		container(pod, "istio-validation").Image = pluginOf(version)
		r.create(pod)
		r.running(pod.Name)
		r.goesOn(pod.Name)
		stay = append(stay, pod.Name)
	}
	stays(last.Version)
	known, lacking := r.asksAgents(last.Version)
	if slices.Contains(lacking, "trace") {
		r.refusesTrace(stay[0])
	}
	var knownNow, lackingNow []string
	r.underChurn([]string{last.Version, version()}, func() {
		r.upgradeAndBack(version(), func() {
			r.goesOn(stay[0])
			stays(version())
			knownNow, lackingNow = r.asksAgents(version())
		})
		r.runsVersion(last.Version)
	})
	r.namesWhatOlderLack(known, lacking, knownNow, lackingNow)
	for _, name := range stay {
		r.goesOn(name)
		r.noLeak(name)
		for _, c := range r.pod(name).Status.ContainerStatuses {
			if c.RestartCount > 0 {
				t.Errorf("container %s of %s was restarted %d times", c.Name, name, c.RestartCount)
			}
		}
	}
	r.note("from %s to %s and back", last.Version, version())
	r.uninstalled() // the chart's values differ from those of other tests
}
