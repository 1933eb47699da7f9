package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// survey has what a way may change: cluster-scoped objects, and files of the nodes.
type survey struct {
	objects []string
	files   map[string]cluster.Files // by the node's name
}

// kinds are the API paths of the cluster-scoped objects that a way may create.
var kinds = []string{
	"api/v1/namespaces",
	"apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
	"apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings",
	"apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
	"apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
	"apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
	"apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
	"apis/apiextensions.k8s.io/v1/customresourcedefinitions",
	"apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
	"apis/rbac.authorization.k8s.io/v1/clusterroles",
}

// look makes a survey.
func (b *bench) look(ctx context.Context) (survey, error) {
	s := survey{files: map[string]cluster.Files{}}
	for _, kind := range kinds {
		data, err := b.cluster.Client.Discovery().RESTClient().Get().AbsPath(kind).DoRaw(ctx)
		if apierrors.IsNotFound(err) { // the cluster does not have this kind
			continue
		}
		var list metav1.PartialObjectMetadataList
		if err = errors.Join(err, json.Unmarshal(data, &list)); err != nil {
			return s, fmt.Errorf("%s: %w", kind, err)
		}
		for _, object := range list.Items {
			s.objects = append(s.objects, kind+"/"+object.Name)
		}
	}
	for _, n := range b.cluster.Nodes {
		files, err := n.Files()
		if err != nil {
			return s, err
		}
		s.files[n.Name] = files
	}
	return s, nil
}

// left lists what exists now but not before the first way, and what has changed.
func (b *bench) left(ctx context.Context, w way) ([]string, error) {
	now, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, object := range now.objects {
		if !slices.Contains(b.before.objects, object) {
			found = append(found, object)
		}
	}
	for node, files := range now.files {
		found = append(found, differ(node, b.before.files[node], files)...)
	}
	if count := b.node.PodProcesses(); count > 0 {
		found = append(found, fmt.Sprintf("%s: %d processes of pods", b.node.Name, count))
	}
	if w.agent != nil {
		if pids := (&visit{bench: b, way: w}).agents(); len(pids) > 0 {
			found = append(found, fmt.Sprintf("%s: %s runs", b.node.Name, w.agent.program))
		}
	}
	networks, err := os.ReadDir(b.node.Path("/run/netns"))
	for _, e := range networks {
		found = append(found, b.node.Name+": network namespace "+e.Name())
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return found, err
}

// differ lists the files of a node that have changed. JSON with the same content counts as unchanged.
func differ(node string, before, now cluster.Files) (found []string) {
	for path, e := range now {
		if was, known := before[path]; !known || !e.Mode.IsDir() && !sameText(was.Contents, e.Contents) {
			found = append(found, node+": "+path)
		}
	}
	for path := range before {
		if _, there := now[path]; !there {
			found = append(found, node+": without "+path)
		}
	}
	return found
}

func sameText(a, b string) bool {
	if a == b {
		return true
	}
	var left, right any
	return json.Unmarshal([]byte(a), &left) == nil && json.Unmarshal([]byte(b), &right) == nil &&
		reflect.DeepEqual(left, right)
}

// clean waits until nothing of a way is left. Then it restores files with the same content in another form, and removes
// what Istio CNI leaves in its socket directory.
func (v *visit) clean(ctx context.Context) error {
	var found []string
	err := until(ctx, "nothing of "+v.key+" is left", func() (bool, error) {
		var err error
		found, err = v.left(ctx, v.way)
		return err == nil && len(found) == 0, err
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.Join(found, "; "))
	}
	for _, n := range v.cluster.Nodes {
		err = errors.Join(err, n.PutBack(v.before.files[n.Name]), os.RemoveAll(n.Path(agentRunDir)))
	}
	return err
}

// rewrite makes the primary CNI write its file again, without any chained plugin.
func (v *visit) rewrite() error {
	path := v.node.Conflist()
	temp := filepath.Join(filepath.Dir(path), ".primary")
	if err := os.WriteFile(temp, []byte(v.node.Primary(cluster.DualStack)), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
