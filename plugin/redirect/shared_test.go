package redirect

import (
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

func TestSharesProxyUser(t *testing.T) {
	id := func(n int64) *int64 { return &n }
	early := func(c Container) edit { c.Name, c.RunAsUser = "early", id(1337); return initContainer(c) }
	for name, c := range map[string]struct {
		edit edit
		want string // "" for none
	}{
		"nothing said": {func(*Pod, *Policy) {}, ""},
		"pod level":    {func(p *Pod, _ *Policy) { p.RunAsUser = id(1337) }, "user 1337"},
		"pod group":    {func(p *Pod, _ *Policy) { p.RunAsGroup = id(1337) }, "group 1337"},
		"container":    {func(p *Pod, _ *Policy) { p.Containers[0].RunAsUser = id(1337) }, "user 1337"},
		"another user": {func(p *Pod, _ *Policy) { p.Containers[0].RunAsUser = id(1000) }, ""},
		"another user of a known group": {func(p *Pod, _ *Policy) {
			p.Containers[0].RunAsUser,
				p.Containers[0].RunAsGroup = id(1000), id(1337)
		}, "group 1337"},
		"overridden":     {func(p *Pod, _ *Policy) { p.RunAsUser, p.Containers[0].RunAsUser = id(1337), id(1000) }, ""},
		"only the proxy": {func(p *Pod, _ *Policy) { p.Containers[1].RunAsUser = id(1337) }, ""},
		"the proxy's own user": {func(p *Pod, _ *Policy) {
			p.Containers[0].RunAsUser, p.Containers[1].RunAsUser = id(2000),
				id(2000)
		}, "user 2000"},
		"fsGroup": {func(p *Pod, _ *Policy) { p.FSGroup = id(1337) }, "fsGroup 1337"},
		"supplementalGroups": {func(p *Pod, _ *Policy) { p.SupplementalGroups = []int64{5, 1337} },
			"supplemental group 1337"},
		"supplemental groups of the image": {func(p *Pod, _ *Policy) {
			p.Containers[0].SupplementalGroups = []int64{1337}
		}, "supplemental group 1337"},
		"other groups": {func(p *Pod, _ *Policy) { p.FSGroup, p.SupplementalGroups = id(5), []int64{6} }, ""},
		"no group is exempt, and it is in it": {func(p *Pod, _ *Policy) {
			p.FSGroup, p.SupplementalGroups, p.Annotations[annotation.EnvoyGroupID] = id(0), []int64{0}, "0"
		}, ""},
		"the user before the groups": {func(p *Pod, _ *Policy) { p.RunAsUser, p.FSGroup = id(1337), id(1337) }, "user 1337"},
		"a group of a pod without an app": {func(p *Pod, _ *Policy) {
			p.Containers, p.FSGroup = p.Containers[1:], id(1337)
		}, ""},
		"an init container": {early(Container{}), ""},
		"a native sidecar":  {early(Container{Restartable: true}), "user 1337"},
		"no group is exempt": {func(p *Pod, _ *Policy) { p.RunAsGroup, p.Annotations[annotation.EnvoyGroupID] = id(0), "0" },
			""},
	} {
		for _, choice := range []SharedProxyUser{SharedWarn, SharedRefuse} {
			pod, policy := meshPod(c.edit)
			policy.SharedProxyUser = choice
			decision, err := Decide(pod, policy)
			if refused := choice == SharedRefuse && c.want != ""; refused != (err != nil) || refused &&
				(!IsInvalid(err) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s, %s: %v, want %q", name, choice, err, c.want)
			}
			if shared := pod.SharesProxyUser(decision.Spec); choice == SharedWarn &&
				((shared != nil) != (c.want != "") || shared != nil && !strings.Contains(shared.Error(), c.want)) {
				t.Errorf("%s: %v, want %q", name, shared, c.want)
			}
		}
	}
	pod, policy := meshPod(notInjected, func(p *Pod, policy *Policy) {
		p.RunAsUser, policy.SharedProxyUser = id(1337),
			SharedRefuse
	})
	if decision, err := Decide(pod, policy); err != nil || decision.Verdict != Untouched {
		t.Errorf("a pod outside the mesh: %+v, %v", decision, err)
	}
}
