package plugin

import (
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// A rerouteVirtualInterfaces list that matches the pod's own interface, in full or by a prefix, from any source, is
// refused, and nothing is left. TestReroutedOwnInterface in package netfilter shows what would happen otherwise.
func TestReroutesItself(t *testing.T) {
	for _, list := range []string{"eth0", "e*", "br-*,eth0", "k6t-eth0, eth*"} {
		for name, say := range map[string]func(*rig){
			annotation.RerouteVirtualInterfaces: func(r *rig) {
				r.annotate(object{annotation.SidecarStatus: "{}", annotation.RerouteVirtualInterfaces: list})
			},
			"configuration": func(r *rig) { r.conf["redirect"] = object{"rerouteVirtualInterfaces": list} },
		} {
			t.Run(list+" by "+name, func(t *testing.T) {
				r := newRig(t)
				say(r)
				r.fails("ADD", codeAnnotation, "rerouteVirtualInterfaces: invalid value", "reach the pod by eth0",
					"behind the pod")
				r.clean()
			})
		}
	}
	r := newRig(t)
	r.conf["redirect"] = object{"rerouteVirtualInterfaces": "k6t-eth0,docker0,eth,eth01,eth0.*"}
	r.must("ADD")
}
