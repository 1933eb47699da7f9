package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

// pristine are the files of each node before the first test, by the node's name.
var pristine = map[string]cluster.Files{}

// remember saves the files of a node.
func remember(n *cluster.Node) (err error) {
	pristine[n.Name], err = n.Files()
	return err
}

// kinds are the API paths of the cluster-scoped resources that tests and the release create.
var kinds = []string{
	"/api/v1/namespaces",
	"/api/v1/nodes",
	"/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
	"/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings",
	"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
	"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
	"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
	"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
	"/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
	"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
	"/apis/rbac.authorization.k8s.io/v1/clusterroles",
	"/apis/security.openshift.io/v1/securitycontextconstraints",
}

// byPath returns a client that requests API paths.
func byPath() restclient.Interface { return nodes.Client.Discovery().RESTClient() }

// objects returns the paths of all objects of these kinds that are not being deleted.
func objects() (paths []string, err error) {
	for _, kind := range kinds {
		const asMetadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
		data, err := byPath().Get().AbsPath(kind).SetHeader("Accept", asMetadata).DoRaw(context.Background())
		if apierrors.IsNotFound(err) { // the API server does not have this kind
			continue
		}
		var list metav1.PartialObjectMetadataList
		if err == nil {
			err = json.Unmarshal(data, &list)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		for _, object := range list.Items {
			if object.DeletionTimestamp == nil {
				paths = append(paths, kind+"/"+object.Name)
			}
		}
	}
	return paths, nil
}

// isOurs reports whether the object or file at a path is part of the release. The release's namespace is not, because
// it outlives the release.
func isOurs(path string) bool { return strings.Contains(filepath.Base(path), "istio-pod-network") }

// survey is everything that a test may change and must restore: objects, labels and taints of nodes, and the nodes'
// files and settings. It omits the release while that is installed.
type survey struct {
	lines   map[string]bool
	objects map[string]bool        // by path
	nodes   map[string]corev1.Node // by name
}

// look takes a survey.
func look() (*survey, error) {
	s := &survey{lines: map[string]bool{}, objects: map[string]bool{}, nodes: map[string]corev1.Node{}}
	paths, err := objects()
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if path != "/api/v1/namespaces/"+system && (state == nil || !isOurs(path)) {
			s.objects[path], s.lines[path] = true, true
		}
	}
	list, err := nodes.Client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, n := range list.Items {
		s.nodes[n.Name] = n
		for _, taint := range n.Spec.Taints {
			if !ofControlPlane(taint) {
				s.lines["taint of "+n.Name+": "+taint.ToString()] = true
			}
		}
		for key, value := range n.Labels {
			s.lines["label of "+n.Name+": "+key+"="+value] = true
		}
	}
	for _, n := range allNodes() {
		lines, err := onNode(n)
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			s.lines[n.Name+": "+line] = true
		}
	}
	return s, nil
}

// onNode returns the files and settings of a node, one per line.
func onNode(n *cluster.Node) ([]string, error) {
	lines, err := n.Settings()
	if err != nil {
		return nil, err
	}
	files, err := n.Files()
	if err != nil {
		return nil, err
	}
	for path, e := range files {
		if text, counts := part(n, path, e); counts {
			lines = append(lines, path+": "+text)
		}
	}
	for _, program := range suspended(n) {
		lines = append(lines, "stopped: "+program)
	}
	return lines, nil
}

// ofControlPlane reports whether the control plane sets a taint, from the node's conditions.
func ofControlPlane(taint corev1.Taint) bool {
	return strings.HasPrefix(taint.Key, "node.kubernetes.io/")
}

// allNodes returns the cluster's nodes, and the OpenShift node if there is one.
func allNodes() []*cluster.Node {
	return append(slices.Clone(nodes.Nodes), agentNodes...)
}

// part returns the contents of a file of a node, without the release's part while that is installed. counts is false if
// a survey omits the file.
func part(n *cluster.Node, path string, e cluster.Entry) (text string, counts bool) {
	switch {
	case e.Mode.IsDir(), strings.HasSuffix(path, ".lock"):
		return "", false
	case state != nil && (isOurs(path) || strings.HasPrefix(path, stateDir)):
		return "", false
	case n.Runtime == cluster.OpenShift && (path == cluster.OpenShiftBinDir+"/istio-pod-network" ||
		strings.HasPrefix(path, stateDir)): // an uninstallation leaves them, because Multus needs them to delete pods
		return "", false
	}
	var list struct {
		Plugins []map[string]any `json:"plugins"`
	}
	if strings.HasSuffix(path, ".conflist") && json.Unmarshal([]byte(e.Contents), &list) == nil {
		list.Plugins = slices.DeleteFunc(list.Plugins, func(plugin map[string]any) bool {
			return state != nil && plugin["type"] == "istio-pod-network"
		})
		data, err := json.Marshal(list)
		return string(data), err == nil
	}
	return e.Contents, true
}

// broken says what a test could not restore. Tests after it would mean nothing.
var broken error

// leavesNothing fails a test that leaves something behind, or removes something that was there before. If the test has
// failed for any reason, it restores by force what the next tests rely on. If that fails too, they do not run.
func (r *rig) leavesNothing() {
	r.Helper()
	if broken != nil {
		r.Fatalf("not run: %v", broken)
	}
	before, err := look()
	must(r, err)
	r.Cleanup(func() {
		if r.Failed() {
			r.Log("taking the release away by force, and putting the nodes back")
			broken = fmt.Errorf("%s has failed, and what it left could not be put back", r.Name())
			if err := reset(before); err != nil {
				r.Error(err)
			}
			r.compare(before)
			r.healthy()
			broken = nil
		}
	})
	r.Cleanup(func() {
		if !r.Failed() {
			r.healthy()
			r.watching()
			r.compare(before)
		}
	})
}

// compare waits until everything is as before.
func (r *rig) compare(before *survey) {
	r.Helper()
	r.succeeds("all that was set is put back", func() error {
		err := changed(before)
		if err != nil && r.Failed() { // if the state never matches, the wait ends the test here
			broken = fmt.Errorf("%s has failed, and could not put back: %w", r.Name(), err)
		}
		return err
	})
}

// changed returns an error that lists the differences from an earlier survey, or nil.
func changed(before *survey) error {
	now, err := look()
	if err != nil {
		return err
	}
	var failed []error
	for line := range now.lines {
		if !before.lines[line] {
			failed = append(failed, fmt.Errorf("left: %.500s", line))
		}
	}
	for line := range before.lines {
		if !now.lines[line] {
			failed = append(failed, fmt.Errorf("gone: %.500s", line))
		}
	}
	return errors.Join(failed...)
}

// reset removes the release, in whatever state it is, and restores what a survey covers: first what prevents the nodes
// from working, then what needs working nodes. It does not create deleted objects again.
func reset(before *survey) error {
	state = nil
	nodes.Gate.Set(apiserver.Trouble{})
	var failed []error
	for _, n := range allNodes() {
		failed = append(failed, n.PutBackSettings())
		for pid := range suspended(n) {
			failed = append(failed, gone(syscall.Kill(pid, syscall.SIGCONT)))
		}
	}
	commands := []*exec.Cmd{
		kubectl("delete", "namespace", system, "istio-pod-network-test", "--ignore-not-found", waits()),
	}
	if agentNodes != nil { // only then the CRD of Multus exists
		ours := "--selector=app.kubernetes.io/part-of=" + release
		commands = append(commands, kubectl("delete", "net-attach-def", "-A", ours))
	}
	for _, command := range commands {
		if out, err := command.CombinedOutput(); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, out))
		}
	}
	paths, err := objects()
	failed = append(failed, err)
	for _, path := range paths {
		if !before.objects[path] && path != "/api/v1/namespaces/"+system {
			failed = append(failed, ignoreNotFound(byPath().Delete().AbsPath(path).Do(context.Background()).Error()))
		}
	}
	for _, n := range before.nodes {
		failed = append(failed, putBackNode(n))
	}
	for _, n := range allNodes() {
		failed = append(failed, n.PutBack(pristine[n.Name]), n.RemoveBridges(), n.RestartRuntime())
	}
	return errors.Join(failed...)
}

// putBackNode restores the labels and taints of a node object, except taints of the control plane.
func putBackNode(before corev1.Node) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		now, err := nodes.Client.CoreV1().Nodes().Get(context.Background(), before.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		now.Labels = before.Labels
		now.Spec.Taints = slices.Concat(
			slices.DeleteFunc(now.Spec.Taints, func(t corev1.Taint) bool { return !ofControlPlane(t) }),
			slices.DeleteFunc(slices.Clone(before.Spec.Taints), ofControlPlane))
		_, err = nodes.Client.CoreV1().Nodes().Update(context.Background(), now, metav1.UpdateOptions{})
		return err
	})
}

// suspended returns the programs of a node that are stopped by SIGSTOP, by process ID.
func suspended(n *cluster.Node) map[int]string {
	all := map[int]string{}
	for _, program := range []string{"kubelet", "containerd", daemonSet} {
		for _, pid := range n.Processes(program) {
			if cluster.Stopped(pid) {
				all[pid] = program
			}
		}
	}
	return all
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// A survey sees every kind of leftover, also files of a release that is not installed, and reset restores everything.
func TestPutBack(t *testing.T) {
	r := newRig(t)
	r.uninstalled()
	n := r.node
	must(r, kubectl("label", "node", n.Name, "kept=yes").Run()) // a label that only reset restores
	r.Cleanup(func() { must(r, kubectl("label", "node", n.Name, "kept-").Run()) })
	before, err := look()
	must(r, err)
	path := func(dir, name string) string { return n.Path(filepath.Join(dir, name)) }
	for _, c := range []struct {
		seen string
		harm func() error
	}{
		{"left: /api/v1/namespaces/left", func() error { return kubectl("create", "namespace", "left").Run() }},
		{"left: /apis/rbac.authorization.k8s.io/v1/clusterroles/left", func() error {
			return kubectl("create", "clusterrole", "left", "--verb=get", "--resource=pods").Run()
		}},
		{"left: taint of " + n.Name + ": left", func() error {
			return kubectl("taint", "node", n.Name, "left=yes:PreferNoSchedule").Run()
		}},
		{"left: label of " + n.Name + ": left=yes", func() error {
			return kubectl("label", "node", n.Name, "left=yes").Run()
		}},
		{"gone: label of " + n.Name + ": kept", func() error {
			return kubectl("label", "node", n.Name, "kept-").Run()
		}},
		{"left: " + n.Name + ": " + cluster.BinDir + "/istio-pod-network", func() error {
			return os.WriteFile(path(cluster.BinDir, "istio-pod-network"), nil, 0o755)
		}},
		{"left: " + n.Name + ": " + stateDir + "/pods", func() error {
			return errors.Join(os.MkdirAll(path(stateDir, "pods"), 0o755),
				os.WriteFile(path(stateDir, "pods/left.json"), nil, 0o644))
		}},
		{"gone: " + n.Name + ": " + cluster.BinDir + "/tuning", func() error {
			return os.Remove(path(cluster.BinDir, "tuning"))
		}},
		{`{"type":"istio-pod-network"}`, func() error {
			return replace(n.Conflist(), []byte(n.Primary(cluster.DualStack, `{"type": "istio-pod-network"}`)))
		}},
		{"left: " + n.Name + ": mounted ro: " + cluster.ConfDir, func() error {
			_, err := n.ReadOnly(cluster.ConfDir)
			return err
		}},
		{"left: " + n.Name + ": hidden: ", func() error { _, err := n.Hide("nft"); return err }},
		{"left: " + n.Name + ": without IPv6: default", func() error {
			return n.Command("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1").Run()
		}},
		{"left: " + n.Name + ": stopped: kubelet", func() error {
			return syscall.Kill(n.Processes("kubelet")[0], syscall.SIGSTOP)
		}},
	} {
		must(r, c.harm())
		r.eventually("it is seen: "+c.seen, func() bool {
			err := changed(before)
			return err != nil && strings.Contains(err.Error(), c.seen)
		})
	}
	must(r, reset(before))
	r.compare(before)
	r.healthy()
}
