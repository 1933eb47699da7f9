package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The names of the release, as in README.md, and of its parts.
const (
	release   = "istio-pod-network-controller"
	system    = "istio-pod-network-controller" // namespace of the release
	daemonSet = "istio-pod-network-agent"
	stateDir  = cluster.StateDir
	agentPort = 15088
)

// version is the version in the chart, next the one to upgrade to.
func version() string { return strings.Fields(os.Getenv(versions))[0] }
func next() string    { return strings.Fields(os.Getenv(versions))[1] }

func pluginImage() string { return pluginOf(version()) }

func pluginOf(version string) string { return "istio-pod-network-plugin:" + version }

// chart returns the path of the chart.
func chart() string { return filepath.Join(build.Root(), "chart", "istio-pod-network-controller") }

// lookUp returns the path of a program of the cluster, or of one of the Helms.
func lookUp(name string) string {
	if strings.HasPrefix(name, "helm") {
		return filepath.Join(os.Getenv(helmEnv), name)
	}
	return filepath.Join(isolated.BinDir(), name)
}

// helm returns a command that runs Helm 4.
func helm(args ...string) *exec.Cmd { return helmOf("helm4", args...) }

// helmOf returns a command that runs one of the Helms.
func helmOf(which string, args ...string) *exec.Cmd {
	return asAdmin(which, append(args, "--namespace="+system)...)
}

// state is the release's state after the last test: the values that it was installed with, or nil without a release.
// Tests run in any order, and each begins by requesting the state that it needs.
var state []string

// agentNodes are the nodes that have agents, or nil for all of nodes.Nodes.
var agentNodes []*cluster.Node

// installed installs or upgrades the release with those values, each in the form of --set.
func (r *rig) installed(values ...string) {
	r.Helper()
	if values == nil {
		values = []string{}
	}
	if state != nil && slices.Equal(state, values) {
		return
	}
	state = nil
	args := []string{"upgrade", "--install", release, chart(), "--create-namespace", "--wait", waits(),
		"--reset-values"}
	for _, v := range values {
		args = append(args, "--set="+v)
	}
	r.output(helm(args...))
	r.agentsReady()
	state = values
	has := func(value string) bool { return slices.Contains(values, value) }
	r.policies(!has("admissionPolicy.enabled=false"), has("injection.replaceInit=true"))
}

// policies waits until the release's admission policies are in force, or no longer in force. The API server applies
// changes with a delay. One policy removes marks that no agent has set, the other replaces istio-init by our wait.
func (r *rig) policies(marks, replaced bool) {
	r.Helper()
	pasted := r.appPod("try")
	pasted.Annotations[annotation.Status] = annotation.Initialized
	r.eventually(fmt.Sprintf("marks that were copied are taken off: %t", marks), func() bool {
		pod, err := r.dryRun(pasted)
		return err == nil && (pod.Annotations[annotation.Status] == "") == marks
	})
	r.eventually(fmt.Sprintf("nobody but an agent sets marks: %t", marks), func() bool {
		for _, agent := range r.agents() {
			_, err := nodes.Client.CoreV1().Pods(system).Patch(r.ctx, agent.Name, types.MergePatchType,
				[]byte(`{"metadata": {"annotations": {"`+annotation.Status+`": "initialized"}}}`),
				metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			return marks && apierrors.IsForbidden(err) || !marks && err == nil
		}
		return true // without agents nobody can set marks
	})
	r.eventually(fmt.Sprintf("istio-init is replaced: %t", replaced), func() bool {
		_, err := r.dryRun(r.stockPod("try"))
		return replaced && err == nil || !replaced && apierrors.IsForbidden(err)
	})
}

// uninstalled uninstalls the release.
func (r *rig) uninstalled() {
	r.Helper()
	state = nil
	r.output(helm("uninstall", release, "--ignore-not-found", "--wait", waits()))
	r.agentsGone()
	r.policies(false, false)
}

// agents returns the pods of the DaemonSet.
func (r *rig) agents() []corev1.Pod {
	r.Helper()
	list, err := nodes.Client.CoreV1().Pods(system).List(r.ctx,
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + daemonSet})
	must(r, err)
	return list.Items
}

func (r *rig) agentsGone() {
	r.Helper()
	r.eventually("no agent is left", func() bool { return len(r.agents()) == 0 })
}

// agentsReady waits until every node of agentNodes has a ready agent, and no other node has one.
func (r *rig) agentsReady() {
	r.Helper()
	r.eventually("every agent is ready", func() bool {
		those := agentNodes
		if those == nil {
			those = nodes.Nodes
		}
		if len(r.agents()) != len(those) {
			return false
		}
		for _, n := range those {
			if status, _ := readyz(n.Address()); status != http.StatusOK {
				return false
			}
		}
		return true
	})
}

// watching waits until all watches of every agent are connected. After a test without API server, client-go's backoff
// takes about half a minute, and until then the agents do not know new pods.
func (r *rig) watching() {
	r.Helper()
	r.eventually("every agent watches the API server", func() bool {
		for _, n := range allNodes() {
			for line := range strings.Lines(metrics(n.Address())) {
				if strings.HasPrefix(line, "istio_pod_network_watch_away_seconds{") && !strings.HasSuffix(line, "} 0\n") {
					return false
				}
			}
		}
		return true
	})
}

// readyz returns the answer of an agent's readiness probe.
func readyz(address string) (status int, body string) { return get(address, "/readyz") }

// metrics returns the metrics of an agent, as text.
func metrics(address string) string { _, body := get(address, "/metrics"); return body }

func get(address, path string) (status int, body string) {
	response, err := http.Get(fmt.Sprintf("http://%s:%d%s", address, agentPort, path))
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	data, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(data)
}

// schedule sets the node selector of the agents.
func schedule(selector string) error {
	patch := fmt.Sprintf(`{"spec": {"template": {"spec": {"nodeSelector": {"e2e": %s}}}}}`, selector)
	_, err := nodes.Client.AppsV1().DaemonSets(system).Patch(context.Background(), daemonSet,
		types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// stopAgents ends all agents, until startAgents or the end of the test.
func (r *rig) stopAgents() {
	r.Helper()
	r.Cleanup(r.startAgents)
	must(r, schedule(`"nowhere"`))
	r.agentsGone()
}

// startAgents undoes stopAgents.
func (r *rig) startAgents() {
	r.Helper()
	must(r, schedule("null"))
	r.agentsReady()
}
