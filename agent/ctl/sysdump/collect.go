package sysdump

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Source is what a sysdump is read from: a cluster.
type Source interface {
	// Host returns the API server's address in the user's kubeconfig.
	Host() string
	Version(ctx context.Context) (string, error)
	Each(ctx context.Context, kind schema.GroupVersionResource, namespace, selector string,
		look func(*unstructured.Unstructured)) error
	Inspect(ctx context.Context, agent corev1.Pod, what ...string) (json.RawMessage, error)
	AgentLog(ctx context.Context, agent corev1.Pod, previous bool, lines int64, limit int) ([]byte, bool, error)
	AgentMetrics(ctx context.Context, agent corev1.Pod, limit int) ([]byte, error)
}

// collector reads a cluster.
type collector struct {
	options
	contents
	from Source
	hide *redactor // nil without --redact

	agents   []corev1.Pod
	listed   bool                      // the agents could be listed
	sets     []appsv1.DaemonSet        // the agents'
	own      map[string]bool           // the agents' namespaces
	pods     map[string]bool           // mesh pods, NAMESPACE/NAME
	nodeOf   map[string]string         // node of each chosen pod
	versions map[string]map[string]any // by node
	ofMesh   map[string][]*corev1.Pod  // mesh pods by namespace
	nameless map[string]error          // lists of names that could not be read, with the errors
}

// collect reads everything. An error means that nothing could be asked, or that the user ended it.
func (c *collector) collect(ctx context.Context) error {
	c.own, c.pods, c.nameless = map[string]bool{}, map[string]bool{}, map[string]error{}
	c.nodeOf = map[string]string{}
	c.versions, c.ofMesh = map[string]map[string]any{}, map[string][]*corev1.Pod{}
	if err := c.findAgents(ctx); err != nil {
		return err
	}
	c.listNodes(ctx)
	c.listNamespaces(ctx)
	c.listPods(ctx)
	for _, k := range kinds {
		c.listKind(ctx, k)
	}
	c.listEvents(ctx)
	c.askAgents(ctx)
	c.askChosen(ctx)
	if ctx.Err() == nil && len(c.files) == 0 && len(c.unread) > 0 {
		return outcome.Unasked(fmt.Errorf("nothing could be read: %s: %s", c.unread[0].What, c.unread[0].Reason))
	}
	c.addVersions(ctx)
	return outcome.Unasked(ctx.Err())
}

// each calls look with all objects of a kind, in the first of its API versions that the cluster has. If it has none,
// that is no error.
func (c *collector) each(ctx context.Context, k kind, namespace string, look func(*unstructured.Unstructured)) error {
	for _, version := range k.versions {
		err := c.from.Each(ctx, k.resource(version), namespace, k.selector, look)
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// addObjects adds a file with objects, if there are any.
func (c *collector) addObjects(f file, objects []map[string]any) {
	for _, o := range objects {
		f.objects = append(f.objects, o)
	}
	if len(f.objects) > 0 {
		c.addTold(f)
	}
}

// addTold adds a file, unless it may have names that cannot be recognised.
func (c *collector) addTold(f file) {
	if c.hide != nil && f.free && len(c.nameless) > 0 {
		lists := strings.Join(slices.Sorted(maps.Keys(c.nameless)), " and ")
		c.miss(&helped{fmt.Errorf("with --redact it may only be told where the names of all %s are known", lists),
			"Make another archive with the verb list on " + lists + ", or without --redact."}, "%s",
			path.Join(f.dir, f.of, f.base))
		return
	}
	c.add(f)
}

// addVersions adds the file with all versions.
func (c *collector) addVersions(ctx context.Context) {
	version, err := c.from.Version(ctx)
	if err != nil {
		c.miss(err, "version of the API server")
	}
	nodes := []any{}
	for _, name := range slices.Sorted(maps.Keys(c.versions)) {
		row := c.versions[name]
		row["name"] = name
		nodes = append(nodes, row)
	}
	c.add(file{base: "versions.json", objects: []any{map[string]any{
		"apiVersion": output.APIVersion, "kind": "Versions", "tool": buildinfo.Version(), "kubernetes": version,
		"nodes": nodes,
	}}})
}

// harvest makes the redactor replace names that are in what was read but in no list: those of deleted objects.
func (c *collector) harvest() {
	if c.hide == nil {
		return
	}
	var texts []string
	for _, f := range c.files {
		texts = append(texts, f.text)
		for _, o := range f.objects {
			data, err := json.Marshal(o)
			if err == nil {
				texts = append(texts, string(data))
			}
		}
	}
	c.hide.harvest(texts)
}
