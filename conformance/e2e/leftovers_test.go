package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	restclient "k8s.io/client-go/rest"
)

// pristine is what was on a node before the first test, by its name.
var pristine = map[string]cluster.Files{}

// remember notes what is on a node.
func remember(n *cluster.Node) (err error) {
	pristine[n.Name], err = n.Files()
	return err
}

// kinds are where the objects are that belong to no namespace and that tests and the release make.
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

// byPath asks the API server by path.
func byPath() restclient.Interface { return nodes.Client.Discovery().RESTClient() }

// objects are those of these kinds that nobody is deleting, by their paths.
func objects() (paths []string, err error) {
	for _, kind := range kinds {
		const asMetadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
		data, err := byPath().Get().AbsPath(kind).SetHeader("Accept", asMetadata).DoRaw(context.Background())
		if apierrors.IsNotFound(err) { // of the kind itself
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

// isOurs reports whether an object or a file is part of the release, by its path; its namespace outlives it.
func isOurs(path string) bool { return strings.Contains(filepath.Base(path), "istio-pod-network") }

// survey is all that a test may have changed and has to put back: objects, what the nodes' objects say, and what is on
// the nodes. The release does not count while it is installed.
func survey() (map[string]bool, error) {
	all := map[string]bool{}
	paths, err := objects()
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if path != "/api/v1/namespaces/"+system && (state == nil || !isOurs(path)) {
			all[path] = true
		}
	}
	list, err := nodes.Client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, n := range list.Items {
		for _, taint := range n.Spec.Taints {
			if !strings.HasPrefix(taint.Key, "node.kubernetes.io/") { // what the control plane sees
				all["taint of "+n.Name+": "+taint.ToString()] = true
			}
		}
		for key, value := range n.Labels {
			all["label of "+n.Name+": "+key+"="+value] = true
		}
	}
	for _, n := range allNodes() {
		lines, err := n.Settings()
		if err != nil {
			return nil, err
		}
		files, err := n.Files()
		if err != nil {
			return nil, err
		}
		for path, e := range files {
			if text, theirs := foreignPart(path, e); theirs {
				lines = append(lines, path+": "+text)
			}
		}
		for _, program := range []string{"kubelet", "containerd", daemonSet} {
			for _, pid := range n.Processes(program) {
				if cluster.Stopped(pid) {
					lines = append(lines, "stopped: "+program)
				}
			}
		}
		for _, line := range lines {
			all[n.Name+": "+line] = true
		}
	}
	return all, nil
}

// allNodes are those of the cluster, and that of OpenShift while there is one.
func allNodes() []*cluster.Node {
	return append(slices.Clone(nodes.Nodes), agentNodes...)
}

// foreignPart is what of a file on a node is not the release's; the state directory is all its own.
func foreignPart(path string, e cluster.Entry) (text string, theirs bool) {
	if isOurs(path) || strings.HasPrefix(path, stateDir) || e.Mode.IsDir() {
		return "", false
	}
	var list struct {
		Plugins []map[string]any `json:"plugins"`
	}
	if strings.HasSuffix(path, ".conflist") && json.Unmarshal([]byte(e.Contents), &list) == nil {
		list.Plugins = slices.DeleteFunc(list.Plugins, func(plugin map[string]any) bool {
			return plugin["type"] == "istio-pod-network"
		})
		data, err := json.Marshal(list)
		return string(data), err == nil
	}
	return e.Contents, !strings.HasSuffix(path, ".lock")
}

// leavesNothing fails a test that leaves something that was not there before, or takes something away. After a failure
// of whatever kind it puts back by force what the next tests rely on.
func (r *rig) leavesNothing() {
	r.Helper()
	before, err := survey()
	must(r, err)
	r.Cleanup(func() {
		if r.Failed() {
			r.Log("taking the release away by force, and putting the nodes back")
			if err := reset(); err != nil {
				r.Error(err)
			}
		}
	})
	r.Cleanup(func() {
		if !r.Failed() {
			r.healthy()
			r.compare(before)
		}
	})
}

// compare waits until all is as before.
func (r *rig) compare(before map[string]bool) {
	r.Helper()
	r.succeeds("all that was set is put back", func() error {
		now, err := survey()
		if err != nil {
			return err
		}
		var failed []error
		for line := range now {
			if !before[line] {
				failed = append(failed, fmt.Errorf("left: %.500s", line))
			}
		}
		for line := range before {
			if !now[line] {
				failed = append(failed, fmt.Errorf("gone: %.500s", line))
			}
		}
		return errors.Join(failed...)
	})
}

// reset takes the release away, however it was installed and whatever is left of it, and puts the nodes back.
func reset() error {
	state = nil
	commands := []*exec.Cmd{
		kubectl("delete", "namespace", system, "istio-pod-network-test", "--ignore-not-found", "--timeout=2m"),
	}
	if agentNodes != nil { // where there are networks of Multus
		ours := "--selector=app.kubernetes.io/part-of=" + release
		commands = append(commands, kubectl("delete", "net-attach-def", "-A", ours))
	}
	var failed []error
	for _, command := range commands {
		if out, err := command.CombinedOutput(); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, out))
		}
	}
	paths, err := objects()
	failed = append(failed, err)
	for _, path := range paths {
		if isOurs(path) && !strings.HasPrefix(path, "/api/v1/namespaces/") {
			failed = append(failed, ignoreNotFound(byPath().Delete().AbsPath(path).Do(context.Background()).Error()))
		}
	}
	for _, n := range allNodes() {
		failed = append(failed, n.PutBack(pristine[n.Name]), n.RemoveBridges(), n.Restart("containerd"))
	}
	return errors.Join(failed...)
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
