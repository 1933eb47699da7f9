package chart

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// definition is Multus's NetworkAttachmentDefinition, and constraints OpenShift's, with the fields that are tested.
type definition struct {
	Metadata struct{ Name, Namespace string } `json:"metadata"`
	Spec     struct{ Config string }          `json:"spec"`
}

type constraints struct {
	AllowHostDirVolumePlugin, AllowHostNetwork, AllowHostPID, AllowHostIPC, AllowPrivilegedContainer,
	AllowPrivilegeEscalation, ReadOnlyRootFilesystem bool
	AllowedCapabilities, RequiredDropCapabilities, Groups, Users, Volumes, SeccompProfiles []string
	Priority                                                                               *int
}

// in reads an object of a kind without a Go type. It returns false if there is none.
func in(t *testing.T, manifests, kind string, into any) bool {
	t.Helper()
	for _, o := range objects(t, manifests) {
		if o.GetKind() != kind {
			continue
		}
		data, err := json.Marshal(o.Object)
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	return false
}

// On OpenShift there is a network with the name that Istio's injector uses, and constraints that fit the agent's pod
// alone.
func TestOpenShift(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		for mode, capabilities := range map[string][]string{
			"apply": {"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "LEASE", "NET_ADMIN", "SETGID", "SETUID",
				"SYS_ADMIN"},
			"off": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "LEASE"}} {
			taken(t, template(t, helm, "kubernetesDistribution=OpenShift", "repair="+mode))
			manifests := template(t, helm, "kubernetesDistribution=OpenShift", "repair="+mode, "hooks=true")
			var net definition
			if !in(t, manifests, "NetworkAttachmentDefinition", &net) || net.Metadata.Name != "istio-cni" ||
				net.Metadata.Namespace != "default" {
				t.Errorf("the network is %+v", net.Metadata)
			}
			var config map[string]any
			if err := json.Unmarshal([]byte(net.Spec.Config), &config); err != nil || config["type"] != "istio-pod-network" ||
				config["cniVersion"] != "0.4.0" ||
				config["name"] != "istio-pod-network" {
				t.Errorf("its configuration is %v: %s", err, net.Spec.Config)
			}
			excluded, _ := json.Marshal(config["excludeNamespaces"])
			for _, want := range []string{"openshift-*", "kube-*", "kube-system", system} {
				if !strings.Contains(string(excluded), `"`+want+`"`) {
					t.Errorf("%s is not excluded: %s", want, excluded)
				}
			}
			if refused := refusedByPlugin(config); refused != "" {
				t.Errorf("the plugin refuses: %s", refused)
			}
			var c constraints
			in(t, manifests, "SecurityContextConstraints", &c)
			agent := daemonSet(t, manifests)
			added := []string{}
			for _, a := range agent.SecurityContext.Capabilities.Add {
				added = append(added, string(a))
			}
			switch {
			case c.AllowPrivilegedContainer || c.AllowHostPID || c.AllowHostIPC || !c.AllowHostNetwork ||
				!c.AllowHostDirVolumePlugin || !c.ReadOnlyRootFilesystem:
				t.Errorf("%+v", c)
			case !slices.Equal(c.AllowedCapabilities, capabilities) || !slices.Equal(added, capabilities) ||
				!slices.Equal(c.RequiredDropCapabilities, []string{"ALL"}):
				t.Errorf("repair %s: capabilities %v, the agent has %v", mode, c.AllowedCapabilities, added)
			case c.AllowPrivilegeEscalation != (mode == "apply") || len(c.Users)+len(c.Groups) > 0 || c.Priority != nil ||
				!slices.Equal(c.SeccompProfiles, []string{"runtime/default"}):
				t.Errorf("%+v", c)
			case !slices.IsSorted(c.Volumes) || !slices.IsSorted(c.AllowedCapabilities):
				t.Errorf("not sorted as they are stored: %v %v", c.Volumes, c.AllowedCapabilities)
			}
			var d appsv1.DaemonSet
			find(t, manifests, "DaemonSet", "istio-pod-network-agent", &d)
			for _, v := range d.Spec.Template.Spec.Volumes {
				kind := map[bool]string{v.HostPath != nil: "hostPath", v.ConfigMap != nil: "configMap",
					v.Projected != nil: "projected"}[true]
				if !slices.Contains(c.Volumes, kind) {
					t.Errorf("volume %s, a %q, is not among %v", v.Name, kind, c.Volumes)
				}
			}
			if scc := d.Spec.Template.Annotations["openshift.io/required-scc"]; scc != "istio-pod-network-agent" {
				t.Errorf("the agent's pods ask for %q", scc)
			}
			var role rbacv1.Role
			find(t, manifests, "Role", "istio-pod-network-agent-scc", &role)
			if len(role.Rules) != 1 || !slices.Equal(role.Rules[0].Verbs, []string{"use"}) ||
				!slices.Equal(role.Rules[0].ResourceNames, []string{"istio-pod-network-agent"}) ||
				!slices.Equal(role.Rules[0].Resources, []string{"securitycontextconstraints"}) {
				t.Errorf("what its account may do: %+v", role.Rules)
			}
			var binding rbacv1.RoleBinding
			find(t, manifests, "RoleBinding", "istio-pod-network-agent-scc", &binding)
			if len(binding.Subjects) != 1 || binding.Subjects[0].Name != "istio-pod-network-agent" {
				t.Errorf("who may use them: %+v", binding.Subjects)
			}
			var job batchv1.Job
			find(t, manifests, "Job", "istio-pod-network-uninstall", &job)
			spec := job.Spec.Template.Spec
			if spec.HostNetwork || spec.Containers[0].SecurityContext.RunAsUser != nil {
				t.Errorf("restricted-v2 would refuse the hook: %+v", spec)
			}
		}
		aux := template(t, helm, "kubernetesDistribution=OpenShift", "openshift.mode=auxChain", "openshift.auxFailOpen=true")
		taken(t, aux)
		if in(t, aux, "NetworkAttachmentDefinition", &definition{}) ||
			!slices.Contains(daemonSet(t, aux).Args, "--mode=aux") {
			t.Errorf("auxChain: %q", daemonSet(t, aux).Args)
		}
		if !strings.Contains(aux, `"auxFailOpen": true`) {
			t.Error("auxFailOpen is not in the plugin's entry")
		}
		plain := template(t, helm)
		for _, kind := range []string{"NetworkAttachmentDefinition", "SecurityContextConstraints"} {
			if in(t, plain, kind, &struct{}{}) {
				t.Errorf("%s outside of OpenShift", kind)
			}
		}
	})
}

// If Istio CNI already has the network's usual name, ours has another one.
func TestOpenShiftBesideIstio(t *testing.T) {
	const theirs = "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: istio-cni, " +
		"namespace: default}\n"
	both(t, func(t *testing.T, helm string) {
		called := func(values ...string) string {
			out, errs, err := program(nil, helm,
				append([]string{"install", name, dir(), "-n", system, "--dry-run=server", "--set=kubernetesDistribution=OpenShift"},
					set(values)...)...)
			if err != nil {
				t.Fatal(errs)
			}
			_, after, _ := strings.Cut(out, "kind: NetworkAttachmentDefinition\nmetadata:\n  name: ")
			first, _, _ := strings.Cut(after, "\n")
			return first
		}
		if got := called(); got != "istio-cni" {
			t.Errorf("alone: %q", got)
		}
		apply(t, theirs)
		got := called()
		if _, errs, err := program([]byte(theirs), "kubectl", "delete", "-f", "-"); err != nil {
			t.Fatal(errs)
		}
		if got != "istio-pod-network" {
			t.Errorf("beside Istio's: %q", got)
		}
		if got := called("openshift.networkName=mesh"); got != "mesh" {
			t.Errorf("as asked for: %q", got)
		}
	})
}

// The policy that replaces istio-init is rendered if the value asks for it, in the version that the API server has.
// Without such a version the chart fails.
func TestReplaceInit(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		taken(t, template(t, helm, "injection.replaceInit=true"))
		if strings.Contains(template(t, helm), "replace-init") {
			t.Error("nobody asked for it")
		}
		for version, words := range map[string]string{"1.36.0": "admissionregistration.k8s.io/v1\n",
			"1.34.0": "admissionregistration.k8s.io/v1beta1\n", "1.33.0": ""} {
			out, errs, err := program(nil, helm, "template", "-n", system, dir(), "--set=injection.replaceInit=true",
				"--kube-version="+version)
			if words == "" && (err == nil || !strings.Contains(errs, "injection.replaceInit")) || words != "" &&
				!strings.Contains(out, "apiVersion: "+words+"kind: MutatingAdmissionPolicy\n") {
				t.Errorf("%s: %v %s", version, err, errs)
			}
		}
	})
}
