package check

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// injector is one of Istio's injectors, by the service of its webhook.
type injector struct{ namespace, revision string }

// String returns the injector's name in texts.
func (i injector) String() string {
	return fmt.Sprintf("revision %s in namespace %s", i.revision, i.namespace)
}

// configMap returns the name of the ConfigMap with the injector's settings.
func (i injector) configMap() string { return cluster.InjectorMap(i.revision) }

// revisionLabel is the label of objects of a revision.
const revisionLabel = "istio.io/rev"

// istio checks each of Istio's injectors.
func (c *Check) istio(ctx context.Context, from Source, r release, a api, before bool) {
	hooks, err := from.Admission.MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{
		LabelSelector: "app=sidecar-injector"})
	if err != nil {
		c.unlooked("istiod", "Istio's injectors", "list mutatingwebhookconfigurations."+admission, err)
		return
	}
	found := injectors(hooks.Items)
	if len(found) == 0 {
		c.warn("istiod", "no injector of Istio's was found", "install Istio (docs/getting-started-istio.md), unless the "+
			"sidecars come in another way")
		return
	}
	for _, i := range found {
		if i.namespace == "" {
			c.add(Item{Check: "istiod", Verdict: NotLookedAt, What: "the injector of revision " + i.revision + ", which is " +
				"outside of this cluster"})
			continue
		}
		c.istiod(ctx, from, i)
		c.injection(ctx, from, i, r, a, before)
	}
}

// injectors returns the injectors behind the webhooks.
func injectors(hooks []admissionv1.MutatingWebhookConfiguration) []injector {
	found := map[injector]bool{}
	for _, configuration := range hooks {
		i := injector{revision: configuration.Labels[revisionLabel]}
		if i.revision == "" {
			i.revision = "default"
		}
		for _, hook := range configuration.Webhooks {
			if hook.ClientConfig.Service != nil {
				i.namespace = hook.ClientConfig.Service.Namespace
			}
		}
		found[i] = true
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b injector) int { return strings.Compare(a.String(), b.String()) })
}

// istiod checks whether istiod runs.
func (c *Check) istiod(ctx context.Context, from Source, i injector) {
	list, err := from.Apps.Deployments(i.namespace).List(ctx, metav1.ListOptions{
		LabelSelector: "app=istiod," + revisionLabel + "=" + i.revision})
	if err != nil {
		c.unlooked("istiod", "istiod of "+i.String(), "list deployments.apps in namespace "+i.namespace, err)
		return
	}
	for _, d := range list.Items {
		if d.Status.AvailableReplicas > 0 {
			version := ""
			if its := versionOf(d.Spec.Template.Spec.Containers, d.Labels); its != "" {
				version = " " + its
			}
			c.well("istiod", "istiod%s of %s is available", version, i)
			return
		}
	}
	next := fmt.Sprintf("kubectl -n %s get deployments,pods -l app=istiod", i.namespace)
	c.ill("istiod", "no istiod of "+i.String()+" is available: nothing is injected", next)
}

// settings are an injector's settings that decide how its pods get their rules.
type settings struct {
	Pilot struct {
		CNI struct {
			Enabled  bool   `json:"enabled"`
			Provider string `json:"provider"`
		} `json:"cni"`
	} `json:"pilot"`
	IstioCNI struct { // before Istio 1.22
		Enabled bool `json:"enabled"`
	} `json:"istio_cni"`
}

// templates are an injector's templates.
type templates struct {
	Default []string          `json:"defaultTemplates"`
	All     map[string]string `json:"templates"`
}

// wait is the program of the init wait.
const wait = "istio-pod-network-wait"

// waits reports whether the default templates have the init wait.
func (t templates) waits() bool {
	return slices.ContainsFunc(t.Default, func(name string) bool { return strings.Contains(t.All[name], "/"+wait) })
}

// injection reports which way of injection an injector uses (docs/injection.md).
func (c *Check) injection(ctx context.Context, from Source, i injector, r release, a api, before bool) {
	const check, ways = "injection", "docs/injection.md"
	what := "how " + i.String() + " injects"
	config, err := from.Core.ConfigMaps(i.namespace).Get(ctx, i.configMap(), metav1.GetOptions{})
	if err != nil {
		c.unlooked(check, what, "get configmaps in namespace "+i.namespace, err)
		return
	}
	var s settings
	var t templates
	if err := json.Unmarshal([]byte(config.Data["values"]), &s); err != nil {
		c.unlooked(check, what+": values of the ConfigMap "+i.configMap(), "", err)
		return
	}
	if err := yaml.Unmarshal([]byte(config.Data["config"]), &t); err != nil {
		c.unlooked(check, what+": config of the ConfigMap "+i.configMap(), "", err)
		return
	}
	replaces, looked := c.replaces(ctx, from, a)
	without := s.Pilot.CNI.Enabled || s.IstioCNI.Enabled
	switch {
	case without && t.waits():
		c.well(check, "%s leaves istio-init out and adds our init wait: way A", i)
	case without:
		c.well(check, "%s leaves istio-init out and adds Istio's own istio-validation: way B, whose wait sees IPv4 alone", i)
	case replaces:
		c.well(check, "%s adds istio-init, of which the policy %s makes our init wait: way C", i, replaceInit)
	case !looked:
		c.add(Item{Check: check, Verdict: NotLookedAt, What: i.String() + " adds istio-init: whether a policy makes our " +
			"init wait of it (way C)", MissingRight: "get mutatingadmissionpolicies." + admission})
	case before:
		c.warn(check, i.String()+" adds istio-init, which writes the rules of its pods itself", "after the installation "+
			"choose a way of "+ways)
	default:
		c.ill(check, i.String()+" adds istio-init, which writes the rules of its pods itself: each needs NET_ADMIN, and "+
			"the plugin leaves it alone (own-init)", "choose a way of "+ways+", such as pilot.cni.enabled=true with "+
			"docs/istio/wait.yaml")
	}
	switch multus, nad := s.Pilot.CNI.Provider == "multus", r.flags["mode"] == "nad"; {
	case !r.known || multus == nad || !without && !nad:
	case nad:
		c.ill(check, i.String()+" does not name our network in its pods, and in mode nad Multus runs the plugin for no other",
			"set pilot.cni.provider=multus in Istio's values (docs/openshift.md, Name the network in mesh pods)")
	default:
		c.warn(check, i.String()+" names the network istio-cni in its pods (pilot.cni.provider=multus), and the agents do "+
			"not make one in mode "+r.flags["mode"], "set openshift.mode=nad here, or pilot.cni.provider=default in Istio's "+
			"values")
	}
}

// replaces reports whether the policy of way C exists, and whether that could be looked at.
func (c *Check) replaces(ctx context.Context, from Source, a api) (there, looked bool) {
	if a.mutating == "" {
		return false, true
	}
	for _, kind := range []string{"mutatingadmissionpolicies", "mutatingadmissionpolicybindings"} {
		if err := lookUp(ctx, from, a.mutating, kind, replaceInit); err != nil {
			return false, apierrors.IsNotFound(err)
		}
	}
	return true, true
}
