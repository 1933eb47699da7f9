package chart

import (
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// agent.securityContext adds to what the agent needs, and removes nothing of it. On OpenShift the security context
// constraints allow just that.
func TestAgentSecurityContext(t *testing.T) {
	const s = "agent.securityContext."
	files, all := []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "LEASE"},
		[]string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "LEASE", "NET_ADMIN", "SETGID", "SETUID",
			"SYS_ADMIN"}
	with := func(list []string, more ...string) []string {
		list = append(slices.Clone(list), more...)
		slices.Sort(list)
		return slices.Compact(list)
	}
	profiles := map[corev1.SeccompProfileType]string{"RuntimeDefault": "runtime/default", "Unconfined": "unconfined"}
	for _, c := range []struct {
		values       []string
		capabilities []string
		escalates    bool
		privileged   bool
		seccomp      string
		seLinux      string
	}{
		{[]string{"repair=off"}, files, false, false, "runtime/default", "spc_t"},
		{nil, all, true, false, "runtime/default", "spc_t"},
		{[]string{s + "capabilities.add={SYS_PTRACE,CHOWN}"}, with(all, "SYS_PTRACE"), true, false, "runtime/default",
			"spc_t"},
		{[]string{"repair=off", s + "capabilities.add={SYS_ADMIN}"}, with(files, "SYS_ADMIN"), true, false, "runtime/default",
			"spc_t"},
		{[]string{"repair=off", s + "privileged=true"}, files, true, true, "runtime/default", "spc_t"},
		{[]string{s + "seccompProfile.type=Unconfined", s + "appArmorProfile.type=Unconfined"}, all, true, false,
			"unconfined", "spc_t"},
		{[]string{s + "seccompProfile.type=Localhost", s + "seccompProfile.localhostProfile=agent.json"}, all, true, false,
			"localhost/agent.json", "spc_t"},
		{[]string{s + "seLinuxOptions.type=container_t", s + "seLinuxOptions.level=s0"}, all, true, false, "runtime/default",
			"container_t"},
		{[]string{"agent.securityContext=null"}, all, true, false, "runtime/default", "spc_t"},
	} {
		manifests := template(t, "helm4", append(c.values, "kubernetesDistribution=OpenShift")...)
		taken(t, manifests)
		agent := daemonSet(t, manifests)
		got := agent.SecurityContext
		profile := profiles[got.SeccompProfile.Type]
		if p := got.SeccompProfile.LocalhostProfile; p != nil {
			profile = "localhost/" + *p
		}
		if !slices.Equal(capabilities(agent), c.capabilities) || len(got.Capabilities.Drop) != 1 ||
			got.Capabilities.Drop[0] != "ALL" ||
			*got.AllowPrivilegeEscalation != c.escalates || *got.Privileged != c.privileged || *got.RunAsUser != 0 ||
			!*got.ReadOnlyRootFilesystem || profile != c.seccomp ||
			got.SELinuxOptions.Type != c.seLinux {
			t.Errorf("%q: %+v", c.values, got)
		}
		if apparmor := strings.Contains(strings.Join(c.values, " "), "appArmor"); (got.AppArmorProfile != nil) != apparmor {
			t.Errorf("%q: AppArmor %v", c.values, got.AppArmorProfile)
		}
		var allowed constraints
		if !in(t, manifests, "SecurityContextConstraints", &allowed) {
			t.Fatal("no constraints")
		}
		if !slices.Equal(allowed.AllowedCapabilities, c.capabilities) || allowed.AllowPrivilegeEscalation != c.escalates ||
			allowed.AllowPrivilegedContainer != c.privileged || !slices.Equal(allowed.SeccompProfiles, []string{c.seccomp}) {
			t.Errorf("%q: the constraints allow %+v", c.values, allowed)
		}
	}
}

// The agent and the hook have the operator's variables. The chart's own variables cannot be overridden.
func TestExtraEnv(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		const e = "agent.extraEnv"
		manifests := template(t, helm, "hooks=true", e+"[0].name=KUBERNETES_SERVICE_HOST", e+"[0].value=192.0.2.10",
			e+"[1].name=HOST_IP", e+"[1].valueFrom.fieldRef.fieldPath=status.hostIP")
		taken(t, template(t, helm, e+"[0].name=HTTPS_PROXY", e+"[0].value=http://192.0.2.1:3128"))
		var job batchv1.Job
		find(t, manifests, "Job", "istio-pod-network-uninstall", &job)
		for what, env := range map[string][]corev1.EnvVar{"agent": daemonSet(t, manifests).Env[2:],
			"hook": job.Spec.Template.Spec.Containers[0].Env} {
			if len(env) != 2 || env[0] != (corev1.EnvVar{Name: "KUBERNETES_SERVICE_HOST", Value: "192.0.2.10"}) ||
				env[1].ValueFrom.FieldRef.FieldPath != "status.hostIP" {
				t.Errorf("%s: %+v", what, env)
			}
		}
	})
}
