package patrol

import (
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// rendered has what this release writes for settings, by what a record holds of them. Most pods of a node have the
// same.
type rendered map[string]string

// isOlder reports whether another release has written the pod's rules than those that this one would write from the
// same settings: an upgrade changes nothing for pods that run. Settings that this release cannot read are another's.
func (now rendered) isOlder(r record.Record, before rendered) bool {
	if r.Decision != record.Redirect {
		return false
	}
	settings := string(r.Spec)
	hash, known := before[settings]
	if !known {
		if spec, err := redirect.ParseSpec(r.Spec); err == nil {
			hash = spec.RuleSet().Hash()
		}
	}
	now[settings] = hash
	return hash == "" || hash != r.RuleSetHash
}

// tellOlder says of a pod that it has the rules of another release, and how it gets those of this one.
func (p *Patrol) tellOlder(pod *corev1.Pod) {
	p.Warner.warn(pod, eventOlder, "The pod's packet rules were written by another release of istio-pod-network, whose "+
		"rules for these settings are not those of now. They go on to work as they did. %s", p.Renewer.remedy(pod.Namespace))
}
