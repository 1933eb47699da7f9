package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/explain"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/annotation"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Injected says how the mesh pods are injected.
type Injected struct {
	Webhook string `json:"webhook"` // as CONFIGURATION/WEBHOOK
	Label   string `json:"label"`   // of the namespace, by which the webhook selects it
	// DNSCapture says whether the sidecars capture DNS.
	DNSCapture bool `json:"dnsCapture"`
}

// mesh is what is known of the cluster's mesh, with --istio.
type mesh struct {
	Injected
	label  [2]string
	create create
	args   []string // of the app beside Envoy
}

// create creates an Istio object.
type create func(context.Context, schema.GroupVersionResource, string, *unstructured.Unstructured) error

// space describes the temporary namespace. Its level is baseline, because Istio's injection by default adds no seccomp
// profile, which Pod Security restricted requires.
func (m *mesh) space() temporary.Kind {
	kind := space
	kind.Level, kind.Inject = "baseline", m.label
	return kind
}

// injection finds the label of a namespace with which the cluster's webhooks inject its pods; nil without --istio.
func (o options) injection(ctx context.Context, from *cluster.Cluster, k kit) (*mesh, error) {
	if !o.istio {
		return nil, nil
	}
	all, err := from.MutatingWebhooks(ctx)
	if err != nil {
		return nil, outcome.Unasked(fmt.Errorf("listing the webhooks that inject%s: %w",
			cluster.Needs("the verb list on mutatingwebhookconfigurations", err), err))
	}
	m := &mesh{create: o.create}
	if m.create == nil {
		m.create = from.Create
	}
	tried := k.injectedPod("mesh", "", k.app())
	none := explain.Injection(all, tried, nil)
	if len(none) == 0 {
		return nil, outcome.Unasked(errors.New("no webhook of Istio's injects in this cluster: there is no istiod, or it " +
			"does not inject; docs/getting-started-istio.md brings it"))
	}
	labels := [][2]string{{temporary.InjectionLabel, "enabled"}, {explain.RevisionLabel, "default"}}
	revisions := revisionsOf(all, none)
	switch {
	case o.revision != "":
		labels = [][2]string{{explain.RevisionLabel, o.revision}}
	case len(revisions) == 1:
		labels = append(labels, [2]string{explain.RevisionLabel, revisions[0]})
	}
	var passed []string
	for _, label := range labels {
		for _, hook := range explain.Injection(all, tried, map[string]string{label[0]: label[1]}) {
			if hook.Selects {
				m.label, m.Label = label, label[0]+"="+label[1]
				m.Webhook = hook.Configuration + "/" + hook.Name
				return m, nil
			}
			passed = append(passed, fmt.Sprintf("%s/%s: %s", hook.Configuration, hook.Name, hook.Why))
		}
	}
	switch valid := "some of " + strings.Join(revisions, ", "); {
	case o.revision != "":
		return nil, outcome.Misuse(invalid.Text("--revision", o.revision, "no webhook of Istio's injects by it", valid))
	case len(revisions) > 1:
		return nil, outcome.Misusef("none of Istio's revisions is the default, so --revision has to say which injects; "+
			"valid: %s", valid)
	}
	return nil, outcome.Unasked(fmt.Errorf("none of Istio's webhooks selects a namespace by its label: %s",
		strings.Join(passed, "; ")))
}

// tagLabel is the label of a webhook configuration that is a tag of a revision.
const tagLabel = "istio.io/tag"

// revisionsOf returns the revisions and tags of the webhooks.
func revisionsOf(all []admissionv1.MutatingWebhookConfiguration, hooks []explain.Webhook) (names []string) {
	for _, configuration := range all {
		if slices.ContainsFunc(hooks, func(w explain.Webhook) bool { return w.Configuration == configuration.Name }) {
			names = append(names, cmp.Or(configuration.Labels[tagLabel], configuration.Labels[explain.RevisionLabel], "default"))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Istio objects with which the sidecars of the namespace let no traffic out or in, so that traffic that arrives has
// bypassed them. The sidecars only know this namespace of the mesh, which keeps them small.
var holds = []struct {
	group, kind, resource string
	spec                  map[string]any
}{
	{"networking.istio.io", "Sidecar", "sidecars", map[string]any{
		"outboundTrafficPolicy": map[string]any{"mode": "REGISTRY_ONLY"},
		"egress":                []any{map[string]any{"hosts": []any{"./*"}}},
	}},
	{"security.istio.io", "PeerAuthentication", "peerauthentications", map[string]any{
		"mtls": map[string]any{"mode": "STRICT"},
	}},
}

// versions are the versions of Istio's API, the newest first.
var versions = []string{"v1", "v1beta1"}

// hold creates these objects.
func (v *verifier) hold(ctx context.Context) error {
	for _, object := range holds {
		var err error
		for _, version := range versions {
			o := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": object.group + "/" + version, "kind": object.kind,
				"metadata": map[string]any{"name": "default"}, "spec": object.spec,
			}}
			resource := schema.GroupVersionResource{Group: object.group, Version: version, Resource: object.resource}
			if err = v.mesh.create(ctx, resource, Namespace, o); !apierrors.IsNotFound(err) {
				break
			}
		}
		switch {
		case apierrors.IsNotFound(err):
			return fmt.Errorf("the cluster does not know %s.%s of Istio's: install its chart base: %w", object.resource,
				object.group, err)
		case err != nil:
			return fmt.Errorf("making a %s in the temporary namespace%s: %w", object.kind,
				cluster.Needs("the verb create on "+object.resource+"."+object.group, err), err)
		}
	}
	return nil
}

// prepare finds out how a pod in the namespace is injected, and what the plugin would do with it.
func (v *verifier) prepare(ctx context.Context, node string) (notes []string, err error) {
	if err := v.hold(ctx); err != nil {
		return nil, err
	}
	v.progress.Say("seeing how Istio injects")
	tried, err := v.core.Pods(Namespace).Create(ctx, v.kit.injectedPod("mesh-try", node, v.kit.app()),
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return nil, fmt.Errorf("a pod that Istio injects could not be made%s: %w; %s",
			cluster.Needs("the verb create on pods", err), err, remedy(err))
	}
	operator, err := v.operator(ctx)
	if err != nil {
		notes = append(notes, err.Error())
	}
	injected := slices.ContainsFunc(slices.Concat(tried.Spec.Containers, tried.Spec.InitContainers),
		func(c corev1.Container) bool { return c.Name == sidecarContainer })
	if !injected {
		delete(tried.Annotations, annotation.Initialize) // the annotation would opt the pod in without a sidecar, too
	}
	e := operator.Of(tried, nil)
	switch {
	case !injected:
		return notes, fmt.Errorf("%s selects the pods, and has not injected one. %s The log of istiod, and the "+
			"policy in the ConfigMap of its injector, say why", v.mesh.Webhook, e.Meaning)
	case e.Verdict != explain.Redirected:
		return notes, fmt.Errorf("the pod that Istio injects is not redirected (%s): %s", cmp.Or(e.Error, e.Reason),
			strings.TrimSpace(e.Meaning+" "+e.Next))
	}
	spec := e.Spec()
	v.mesh.DNSCapture = spec.DNSCapture
	v.mesh.args = []string{"--envoy", "--timeout=" + v.timeout.String(), "--families=" + string(spec.Families),
		fmt.Sprint("--outbound-port=", spec.OutboundPort), fmt.Sprint("--inbound-port=", spec.InboundPort),
		fmt.Sprint("--dns-port=", spec.DNSPort), "--identity=/ns/" + Namespace + "/sa/" + accountName}
	notes = append(notes, "how a sidecar's call of its own pod comes in: Envoy makes none for who asks (verify without "+
		"--istio)")
	if !spec.DNSCapture {
		notes = append(notes, "DNS, which these sidecars do not capture (ISTIO_META_DNS_CAPTURE)")
	}
	return notes, nil
}

// operator returns the operator's settings, or the plugin's defaults and why the settings are not known.
func (v *verifier) operator(ctx context.Context) (explain.Operator, error) {
	config, err := v.core.ConfigMaps(v.agents).Get(ctx, cluster.SettingsMap, metav1.GetOptions{})
	if err == nil {
		operator, wrong := explain.OperatorIn(config)
		if err = wrong; err == nil {
			return operator, nil
		}
	}
	return explain.DefaultOperator(), fmt.Errorf("the operator's settings, for which the plugin's defaults were taken"+
		"%s: %w", cluster.Needs("the verb get on ConfigMap "+cluster.SettingsMap+" in namespace "+v.agents, err), err)
}

// remedy returns what to do about a pod that was refused.
func remedy(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, "failed calling webhook"):
		return "see whether istiod runs: kubectl get pods -A -l app=istiod"
	case strings.Contains(text, "violates PodSecurity"):
		return "choose a way of injection whose pods need no privilege (docs/injection.md), such as pilot.cni.enabled=true"
	}
	return "see what refuses it"
}

// injectedPod returns a pod with one container that Istio should inject. It leaves out the settings for the stand-in of
// the sidecar.
func (k kit) injectedPod(name, node string, c corev1.Container) *corev1.Pod {
	p := k.alone(name, node, c)
	k.annotate(p)
	for _, of := range ofStandIn {
		delete(p.Annotations, of)
	}
	return p
}

// envoyPod returns a mesh pod that calls peers, and another mesh pod's app at an address.
func (k kit) envoyPod(name, node string, m *mesh, peers []string, app, asks string) *corev1.Pod {
	c := k.app()
	c.Args = append(slices.Clone(m.args), "--name="+meshName, "--peer="+strings.Join(peers, ","), "--mtls="+app)
	if m.DNSCapture {
		c.Args = append(c.Args, "--dns", "--ask="+asks)
	}
	return k.injectedPod(name, node, c)
}

// servedPod returns a mesh pod that is called. A label distinguishes it from those of other nodes.
func (k kit) servedPod(name, node string) *corev1.Pod {
	c := k.app()
	c.Command, c.Args = []string{program, "serve"}, nil
	p := k.injectedPod(name, node, c)
	p.Labels = maps.Clone(p.Labels)
	p.Labels[servedBy] = name
	return p
}
