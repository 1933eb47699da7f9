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

// The release, as README.md installs it, and what it is made of.
const (
	release   = "istio-pod-network-controller"
	system    = "istio-pod-network-controller" // its namespace
	daemonSet = "istio-pod-network-agent"
	stateDir  = cluster.StateDir
	agentPort = 15088
)

// version is the one that the chart names, and next another.
func version() string { return strings.Fields(os.Getenv(versions))[0] }
func next() string    { return strings.Fields(os.Getenv(versions))[1] }

func pluginImage() string { return pluginOf(version()) }

func pluginOf(version string) string { return "istio-pod-network-plugin:" + version }

// chart is the directory with it.
func chart() string { return filepath.Join(build.Root(), "chart", "istio-pod-network-controller") }

// lookUp is the path of a program of the cluster, or of one of the Helms.
func lookUp(name string) string {
	if strings.HasPrefix(name, "helm") {
		return filepath.Join(os.Getenv(helmEnv), name)
	}
	return filepath.Join(isolated.BinDir(), name)
}

// helm is a command of Helm 4.
func helm(args ...string) *exec.Cmd { return helmOf("helm4", args...) }

// helmOf is a command of that Helm.
func helmOf(which string, args ...string) *exec.Cmd {
	return asAdmin(which, append(args, "--namespace="+system)...)
}

// state is what the last test has left of the release: the values it was installed with, or nil if there is none. Tests
// come in any order, and each begins by saying what it needs.
var state []string

// agentNodes are the nodes that the release has agents on, or nil for all of nodes.Nodes.
var agentNodes []*cluster.Node

// installed brings the release to those values, each as --set takes it.
func (r *rig) installed(values ...string) {
	r.Helper()
	if values == nil {
		values = []string{}
	}
	if state != nil && slices.Equal(state, values) {
		return
	}
	state = nil
	args := []string{"upgrade", "--install", release, chart(), "--create-namespace", "--wait", "--timeout=3m",
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

// policies waits until it is in force, or in force no more, what the release has the API server do to new pods: that
// takes a moment to read of a policy, and of its end. One keeps marks from those who are no agent, another makes
// istio-init our wait.
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
		return true // nobody has the marks to give
	})
	r.eventually(fmt.Sprintf("istio-init is replaced: %t", replaced), func() bool {
		_, err := r.dryRun(r.stockPod("try"))
		return replaced && err == nil || !replaced && apierrors.IsForbidden(err)
	})
}

// uninstalled takes the release away.
func (r *rig) uninstalled() {
	r.Helper()
	state = nil
	r.output(helm("uninstall", release, "--ignore-not-found", "--wait", "--timeout=3m"))
	r.agentsGone()
	r.policies(false, false)
}

// agents are the pods of the DaemonSet.
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

// agentsReady waits until there is an agent on every node that says it is ready, and only those.
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

// watching waits until every agent watches what it knows. After a test in which the API server was away that takes as
// long as client-go's back-off, about half a minute, and the next test would find an agent that knows no new pod.
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

// readyz is what the agent at an address says of its readiness.
func readyz(address string) (status int, body string) { return get(address, "/readyz") }

// metrics is what it counts.
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

// schedule says which nodes the agents may be on, as an operator would who wants one away.
func schedule(selector string) error {
	patch := fmt.Sprintf(`{"spec": {"template": {"spec": {"nodeSelector": {"e2e": %s}}}}}`, selector)
	_, err := nodes.Client.AppsV1().DaemonSets(system).Patch(context.Background(), daemonSet,
		types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// stopAgents ends every agent, until startAgents or the end of the test.
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
