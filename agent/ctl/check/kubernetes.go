package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
)

// api has the APIs of the API server that the chart can use.
type api struct {
	validating bool
	mutating   string // API version of MutatingAdmissionPolicy, "" if there is none
	multus     bool   // NetworkAttachmentDefinitions
	openshift  bool
}

// Groups of APIs.
const (
	admission = "admissionregistration.k8s.io"
	multus    = "k8s.cni.cncf.io"
)

// oldest is the oldest Kubernetes that the chart accepts (kubeVersion in Chart.yaml).
var oldest = version.MustParseGeneric("1.25")

// api reads which APIs the API server has. An error means that it does not answer.
func (c *Check) api(ctx context.Context, from Source) (found api, err error) {
	info, err := from.Discovery.ServerVersionWithContext(ctx)
	switch {
	case apierrors.IsForbidden(err):
		c.unlooked("kubernetes-version", "the version of Kubernetes", "get /version", err)
	case err != nil:
		return found, fmt.Errorf("asking the API server for its version: %w", err)
	default:
		c.kubernetes(info.GitVersion)
	}
	const right = "get /apis/" + admission
	stable, err := resources(ctx, from, admission+"/v1")
	if err != nil {
		c.unlooked("admission-api", "the APIs of admission policies", right, err)
		return found, nil
	}
	beta, err := resources(ctx, from, admission+"/v1beta1")
	if err != nil {
		c.unlooked("admission-api", "the APIs of admission policies", right, err)
		return found, nil
	}
	found.validating = slices.Contains(stable, "validatingadmissionpolicies")
	const mutating = "mutatingadmissionpolicies"
	switch {
	case slices.Contains(stable, mutating):
		found.mutating = "v1"
	case slices.Contains(beta, mutating):
		found.mutating = "v1beta1"
	}
	switch {
	case !found.validating:
		c.warn("admission-api", "the API server has no ValidatingAdmissionPolicy: only RBAC restricts the agents' tokens, "+
			"and whoever may edit a pod may also write its marks", "upgrade Kubernetes to 1.30 or later")
	case found.mutating == "":
		c.well("admission-api", "ValidatingAdmissionPolicy is there; MutatingAdmissionPolicy is not (Kubernetes 1.36), so "+
			"copied marks are warned of and not taken off, and way C of injection is not possible")
	default:
		c.well("admission-api", "ValidatingAdmissionPolicy and MutatingAdmissionPolicy (%s) are there", found.mutating)
	}
	definitions, err := resources(ctx, from, multus+"/v1")
	if err != nil {
		c.unlooked("multus-api", "whether there are NetworkAttachmentDefinitions", "get /apis/"+multus, err)
	}
	constraints, err := resources(ctx, from, "security.openshift.io/v1")
	if err != nil {
		c.unlooked("openshift-api", "whether this is OpenShift", "get /apis/security.openshift.io", err)
	}
	found.multus = slices.Contains(definitions, "network-attachment-definitions")
	found.openshift = slices.Contains(constraints, "securitycontextconstraints")
	return found, nil
}

// kubernetes checks the version of Kubernetes.
func (c *Check) kubernetes(its string) {
	v, err := version.ParseGeneric(its)
	switch {
	case err != nil:
		c.warn("kubernetes-version", "the API server says that its version is "+its, "see that it is 1.25 or later")
	case v.LessThan(oldest):
		c.ill("kubernetes-version", "Kubernetes "+its+" is older than 1.25, and the chart refuses it", "upgrade Kubernetes; "+
			"docs/openshift.md, OpenShift 3, has ways around that are not tested")
	default:
		c.well("kubernetes-version", "Kubernetes %s", its)
	}
}

// resources returns the names of the resources in an API version, none if it does not exist.
func resources(ctx context.Context, from Source, groupVersion string) (names []string, err error) {
	list, err := from.Discovery.ServerResourcesForGroupVersionWithContext(ctx, groupVersion)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, r := range list.APIResources {
		names = append(names, r.Name)
	}
	return names, nil
}

// Limits of what is known to work: docs/compatibility.md.
var (
	noCookies     = version.MustParseGeneric("5.14") // before it network namespaces have no cookie
	noOwners      = version.MustParseGeneric("5.10") // before it nftables cannot tell the users of a user namespace apart
	noOriginal    = version.MustParseGeneric("4.18")
	oldContainerd = version.MustParseGeneric("1.6")
	oldCRIO       = version.MustParseGeneric("1.28")
)

// nodes checks the nodes' status, and returns those with Linux.
func (c *Check) nodes(ctx context.Context, from Source) []corev1.Node {
	all, err := from.Nodes(ctx)
	if err != nil {
		c.unlooked("nodes", "kernels, runtimes and taints of the nodes", "list nodes", err)
		return nil
	}
	nodes := slices.DeleteFunc(slices.Clone(all), func(n corev1.Node) bool { return system(n) != "linux" })
	if len(nodes) == 0 {
		c.ill("nodes", "no node runs Linux", "add nodes with Linux: the plugin's rules are Linux's")
		return nil
	}
	kernels, runtimes := map[string]bool{}, map[string]bool{}
	problems := map[string][]string{}
	for _, n := range nodes {
		info := n.Status.NodeInfo
		kernel, _, _ := strings.Cut(info.KernelVersion, "-")
		kernels[kernel], runtimes[strings.Replace(info.ContainerRuntimeVersion, "://", " ", 1)] = true, true
		for _, problem := range []string{kernelProblem(info.KernelVersion), runtimeProblem(info.ContainerRuntimeVersion)} {
			problems[problem] = append(problems[problem], n.Name)
		}
		if !isReady(n) {
			problems[notReady] = append(problems[notReady], n.Name)
		}
	}
	delete(problems, "")
	c.well("nodes", "%s with Linux %s and %s", counted(len(nodes)), some(slices.Collect(maps.Keys(kernels))),
		some(slices.Collect(maps.Keys(runtimes))))
	for _, problem := range slices.Sorted(maps.Keys(problems)) {
		c.warn("nodes", some(problems[problem])+": "+problem, remedies[problem])
	}
	return nodes
}

// What is worth knowing about a node.
const (
	notReady     = "the kubelet is not ready, and no agent can be put there"
	noCookie     = "Linux before 5.14 gives network namespaces no cookie, which the init wait's mode annotation needs"
	noOwner      = "Linux before 5.10: in pods with hostUsers: false nftables takes the sidecar for an app"
	noAddress    = "Linux before 4.18: nftables knows no original address of a connection, which the rules compare"
	oldRuntime   = "nobody has tried this container runtime: containerd is known from 1.6 on, CRI-O from 1.28 on"
	otherRuntime = "this container runtime relays no annotations, and the agent does not see its network namespaces"
)

// remedies say what to do about it.
var remedies = map[string]string{
	notReady:   "kubectl describe node says why; delete the object of a node that is gone for good",
	noCookie:   "leave --mode of the wait as it is (any), or upgrade the kernel",
	noOwner:    "leave the value backend as it is (auto), which takes iptables there, or upgrade the kernel",
	noAddress:  "leave the value backend as it is (auto), which takes iptables there, or upgrade the kernel",
	oldRuntime: "upgrade the container runtime, and run helm test after the installation",
	otherRuntime: "leave the value repair as it is (auto), which deletes pods that came too early, or use containerd or " +
		"CRI-O",
}

func kernelProblem(its string) string {
	switch v, err := version.ParseGeneric(its); {
	case err != nil:
		return ""
	case v.LessThan(noOriginal):
		return noAddress
	case v.LessThan(noOwners):
		return noOwner
	case v.LessThan(noCookies):
		return noCookie
	}
	return ""
}

func runtimeProblem(its string) string {
	name, text, _ := strings.Cut(its, "://")
	v, err := version.ParseGeneric(text)
	switch {
	case name == "docker":
		return otherRuntime
	case err == nil && (name == "containerd" && v.LessThan(oldContainerd) || name == "cri-o" && v.LessThan(oldCRIO)):
		return oldRuntime
	}
	return ""
}

// system returns a node's operating system.
func system(n corev1.Node) string {
	if its := n.Status.NodeInfo.OperatingSystem; its != "" {
		return its
	}
	if its := n.Labels[corev1.LabelOSStable]; its != "" {
		return its
	}
	return "linux"
}

// isReady reports whether a node is ready.
func isReady(n corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// usualTaint is the startup taint, unless the value startupTaint.key sets another one.
const usualTaint = "istio-pod-network-controller/agent-not-ready"

// tainted returns the nodes with a taint.
func tainted(nodes []corev1.Node, key string) (names []string) {
	for _, n := range nodes {
		if slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == key }) {
			names = append(names, n.Name)
		}
	}
	return names
}

// taintsBefore looks for nodes that wait for agents.
func (c *Check) taintsBefore(nodes []corev1.Node) {
	if names := tainted(nodes, usualTaint); len(names) > 0 {
		c.warn("startup-taint", some(names)+": the startup taint is there, and agents take it away only if they are told to",
			"install with startupTaint.enabled=true")
	}
}

// podSecurity checks the level of the agents' namespace. mayCome says that the namespace need not exist yet.
func (c *Check) podSecurity(ctx context.Context, from Source, name string, mayCome bool) {
	const check, level = "pod-security", "pod-security.kubernetes.io/enforce"
	label := fmt.Sprintf("kubectl label --overwrite namespace %s %s=privileged", name, level)
	namespace, err := from.Core.Namespaces().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && mayCome:
		c.well(check, "namespace %s is not there yet; where the cluster enforces Pod Security by itself, label it when it "+
			"is: %s=privileged", name, level)
	case err != nil:
		c.unlooked(check, "the Pod Security level of namespace "+name, "get namespaces", err)
	case namespace.Labels[level] == "" || namespace.Labels[level] == "privileged":
		c.well(check, "namespace %s admits the agents, as far as its labels say", name)
	default:
		c.ill(check, fmt.Sprintf("namespace %s enforces Pod Security %s, which refuses the agents: they mount directories "+
			"of the node", name, namespace.Labels[level]), label)
	}
}
