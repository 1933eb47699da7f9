package patrol

import (
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// rendered has what this release writes for the settings of each record.
type rendered map[string]string

// isOlder reports whether another release has written the pod's rules than those that this one would write from the
// same settings: an upgrade changes nothing for pods that run. Settings that this release cannot read are another's.
// Whoever lists records leaves their settings out, so they are read from the store, once; as long as that fails nothing
// is said of the pod, and it is asked again.
func (now rendered) isOlder(r record.Record, before rendered, store record.Store) bool {
	if r.Decision != record.Redirect {
		return false
	}
	key := r.ContainerID + "/" + r.IfName + " " + r.Time.String()
	hash, known := before[key]
	if !known {
		if r.Spec == nil {
			whole, err := store.Get(r.ContainerID, r.IfName)
			if err != nil {
				return false
			}
			r.Spec = whole.Spec
		}
		if spec, err := redirect.ParseSpec(r.Spec); err == nil {
			hash = spec.RuleSet().Hash()
		}
	}
	now[key] = hash
	return hash == "" || hash != r.RuleSetHash
}

// tellOlder says of a pod that it has the rules of another release, and how it gets those of this one.
func (p *Patrol) tellOlder(pod *corev1.Pod) {
	p.Warner.warn(pod, eventOlder, "The pod's packet rules were written by another release of istio-pod-network, whose "+
		"rules for these settings are not those of now. They go on to work as they did. %s", p.Renewer.remedy(pod.Namespace))
}
