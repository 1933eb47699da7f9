package plugin

import (
	"errors"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// With families: proxy, ADD looks at the pod's addresses, and the record keeps the families that follow from them.
// CHECK and later calls use the record, even if the configuration or the addresses have changed since. A new ADD
// decides anew.
func TestFamiliesOfTheProxy(t *testing.T) {
	v4, v6 := redirect.IPv4, redirect.IPv6
	for name, test := range map[string]struct {
		env        map[string]string
		unresolved []string
		has        []redirect.Family
		want       string
		looks      int
	}{
		"both addresses":    {nil, nil, []redirect.Family{v6, v4}, "IPv4", 1},
		"IPv6":              {nil, nil, []redirect.Family{v6}, "IPv6", 1},
		"no address":        {nil, nil, nil, "", 1},
		"listens in both":   {map[string]string{redirect.EnvDualStack: "true"}, nil, []redirect.Family{v4}, "", 0},
		"nobody here knows": {nil, []string{redirect.EnvDualStack}, []redirect.Family{v4}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.conf["agentSocket"], r.conf["redirect"] = "/agent.sock", object{"families": "proxy"}
			r.answer = func(facts.Request) (redirect.Pod, error) {
				pod := cart()
				pod.Containers[1].Env, pod.Containers[1].Unresolved, pod.Containers[1].RunAsUser = test.env, test.unresolved, nil
				return pod, nil
			}
			r.netns.Has = test.has
			r.must("ADD")
			settings := `{}`
			if test.want != "" {
				settings = `{"families":"` + test.want + `"}`
			}
			r.redirected(settings)
			if got := r.record(); got.Families != test.want || r.netns.Calls["Families"] != test.looks {
				t.Errorf("recorded %q, want %q; asked for addresses %d times, want %d", got.Families, test.want,
					r.netns.Calls["Families"], test.looks)
			}
			delete(r.conf, "redirect")
			r.netns.Has = []redirect.Family{v4, v6}
			r.must("CHECK")
			r.must("ADD") // the operator now captures both families
			r.redirected(`{}`)
			if got := r.record(); got.Families != "" {
				t.Errorf("recorded %q by an ADD that captures both", got.Families)
			}
			r.must("CHECK")
		})
	}
}

// If the kernel does not list the addresses, ADD fails: it never captures only a part.
func TestAddressesCannotBeRead(t *testing.T) {
	r := newRig(t)
	r.conf["agentSocket"], r.conf["redirect"] = "/agent.sock", object{"families": "proxy"}
	r.answer = func(facts.Request) (redirect.Pod, error) { return cart(), nil }
	r.netns.Fail = map[string]error{"Families": errors.New("no answer")}
	r.fails("ADD", codeRules, "which families the pod has", "no answer")
	r.clean()
}

// Without an agent the pod's containers are unknown, and both families are captured. An operator cannot choose one
// family.
func TestFamiliesWithoutAnAgent(t *testing.T) {
	r := newRig(t)
	r.conf["redirect"] = object{"families": "proxy"}
	r.netns.Has = []redirect.Family{redirect.IPv4}
	r.must("ADD")
	r.redirected(`{}`)
	r.conf["redirect"] = object{"families": "IPv4"}
	r.fails("ADD", types.ErrInvalidNetworkConfig, "redirect.families", "all or proxy")
}
