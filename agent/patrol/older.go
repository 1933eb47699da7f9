package patrol

import (
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// rendered has what is known of the settings of each record.
type rendered map[string]written

// written is what is kept of the settings from which a pod's rules were written. It is zero if this release cannot read
// them.
type written struct {
	hash     string      // of the rules that this release would write
	uid, gid redirect.ID // the sidecar's IDs in the rules
}

// of returns what is known of a record's settings. Lists of records do not have the settings, so it reads them from the
// store, once. If that fails, known is false, and the next round tries again.
func (now rendered) of(r record.Record, before rendered, store record.Store) (its written, known bool) {
	if r.Decision != record.Redirect {
		return its, false
	}
	key := r.ContainerID + "/" + r.IfName + " " + r.Time.String()
	its, known = before[key]
	if !known {
		if r.Spec == nil {
			whole, err := store.Get(r.ContainerID, r.IfName)
			if err != nil {
				return its, false
			}
			r.Spec = whole.Spec
		}
		if spec, err := redirect.ParseSpec(r.Spec); err == nil {
			its = written{spec.RuleSet().Hash(), spec.ProxyUID, spec.ProxyGID}
		}
	}
	now[key] = its
	return its, true
}

// as returns the settings with the sidecar's IDs in the rules, if they are known.
func (its written) as(spec redirect.Spec) redirect.Spec {
	if its.uid != 0 { // it is never root
		spec.ProxyUID, spec.ProxyGID = its.uid, its.gid
	}
	return spec
}

// isOlder reports whether another release has written the pod's rules, and this one would write others from the same
// settings: an upgrade does not change running pods. Settings that this release cannot read are another release's.
func (its written) isOlder(r record.Record) bool {
	return its.hash == "" || its.hash != r.RuleSetHash
}

// tellOlder reports that the pod has the rules of another release, and how it gets those of this one.
func (p *Patrol) tellOlder(pod *corev1.Pod) {
	p.Warner.warn(pod, eventOlder, "The pod's packet rules were written by another release of istio-pod-network, whose "+
		"rules for these settings are not those of now. They go on to work as they did. %s", p.Renewer.remedy(pod.Namespace))
}
