package patrol

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/files"
	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// verdict is what the patrol finds about a pod without a record. It depends on the annotations at the time when the
// pod's network was made. Annotations that are set later, on the pod or on its namespace, apply to its next network.
type verdict string

const (
	fine    verdict = ""               // not in the mesh, as far as is known
	bypass  verdict = "bypass"         // in the mesh when its network was made, but the plugin was not run or not chained
	late    verdict = "opted-in-later" // in the mesh by its current annotations, but not by those of that time
	unknown verdict = "unknown"        // in the mesh by its current annotations; those of that time are unknown
)

// Outside are the verdicts about pods that are outside the mesh although their current annotations put them into it.
var Outside = []string{string(late), string(unknown)}

// Questions are the pods about which the plugin has asked. The runtime has run the plugin for each of them.
type Questions interface {
	HeardSince() time.Time // the time since which none can have been missed, or zero
	Asked(uid types.UID) bool
	Forget(exists func(uid types.UID) bool)
}

// judge returns the verdict about a pod without a record.
func (p *Patrol) judge(pod *corev1.Pod, s *sighting) verdict {
	namespace, known := p.Namespaces.Known(pod.Namespace)
	if !known || pod.Spec.HostNetwork || kube.IsOver(pod) || kube.IsMirror(pod) || !p.isOurs(pod, s) {
		return fine
	}
	facts := podfacts.Of(pod, namespace)
	isMeant := p.redirects(facts)
	then, told := p.annotationsThen(pod, s)
	if !told {
		return map[bool]verdict{true: unknown}[isMeant]
	}
	facts.Annotations, facts.NamespaceAnnotations = then, nil
	if p.redirects(facts) { // whatever the namespace says: if it had opted out, there would be a record
		return bypass
	}
	// If the pod has no opt-in of its own, the plugin reads the namespace's, and an opt-out leaves no record.
	facts.NamespaceAnnotations = namespace
	byNamespace, asked := p.redirects(facts), p.Questions.Asked(pod.UID)
	switch {
	case byNamespace && !asked && p.hasHeardAll(pod):
		return bypass
	case isMeant && byNamespace && !asked:
		return unknown
	case isMeant:
		return late
	}
	return fine
}

// isOurs reports whether the plugin should have handled the pod's network, because it was made after the plugin was
// chained. That includes a network that was made while the plugin was not chained for some time: nothing else handled
// it. A pod that its init wait then holds came too early, which is reported elsewhere.
func (p *Patrol) isOurs(pod *corev1.Pod, s *sighting) bool {
	if !p.chained.IsZero() && kube.HasNetworkSince(pod, p.chained) {
		s.missed = false
		return true
	}
	s.missed = !p.first.IsZero() && kube.HasNetworkSince(pod, p.first) && !podfacts.IsHeld(pod)
	return s.missed
}

// hasHeardAll reports whether this agent cannot have missed a question about the pod: it was listening, and saw the
// pod, before the pod had a network. The times in the pod's status are not enough.
func (p *Patrol) hasHeardAll(pod *corev1.Pod) bool {
	_, seen := p.Pods.AnnotationsBefore(pod)
	since := p.Questions.HeardSince()
	return seen && !since.IsZero() && kube.HasNetworkSince(pod, since)
}

// redirects reports whether the plugin redirects a pod with these facts.
func (p *Patrol) redirects(facts redirect.Pod) bool {
	d, err := redirect.Decide(facts, p.Policy)
	return err == nil && d.Verdict == redirect.Redirect
}

// annotationsThen returns the annotations that the pod had when it got its network: from libcni's cache, or else as the
// watch has shown them. It keeps what is known of a network.
func (p *Patrol) annotationsThen(pod *corev1.Pod, s *sighting) (annotations map[string]string, known bool) {
	network := kube.NetworkOf(pod)
	if s.network == network && s.then != nil {
		return s.then, true
	}
	then, known := annotationsOf(pod, p.sandboxes())
	if !known {
		then, known = p.Pods.AnnotationsBefore(pod)
	}
	if known {
		s.network, s.then = network, then
	}
	return then, known
}

// sandboxes returns those in libcni's cache, which it reads once per round. Without a cache there are none.
func (p *Patrol) sandboxes() []sandbox {
	if !p.cacheRead {
		p.cached, _ = p.Repairer.sandboxes.all()
		p.cacheRead = true
	}
	return p.cached
}

// tellOutside reports that a pod is outside the mesh, and how it gets into it.
func (p *Patrol) tellOutside(pod *corev1.Pod, v verdict) {
	const remedy = "It goes on without packet rules. If it is to be in the mesh, delete it, so that it is made again"
	switch v {
	case late:
		p.Warner.warn(pod, eventLate, "The pod, or its namespace, was opted in to the mesh after the pod's network was "+
			"made. "+remedy)
	case unknown:
		p.Warner.warn(pod, eventUnknown, "By its annotations, or its namespace's, the pod belongs to the mesh, and it has "+
			"no packet rules. Whether they said so when its network was made, nobody knows any more. "+remedy)
	}
}

// maxKnown is more bytes than the UIDs of all pods of a node need.
const maxKnown = 1 << 20

// knownBypasses is a file with the UIDs of the pods that bypass the mesh, for the next agent in this boot: that agent
// may not be able to find out again.
type knownBypasses struct {
	path   string
	stored []types.UID
}

// load returns what an earlier agent has found. A file that cannot be read counts as empty.
func (k *knownBypasses) load() map[types.UID]*sighting {
	seen := map[types.UID]*sighting{}
	if data, err := files.Read(k.path, maxKnown); err == nil {
		_ = json.Unmarshal(data, &k.stored)
	}
	for _, uid := range k.stored {
		// The reason for the bypass is not stored. If the pod is deleted, its successor may bypass the mesh for the
		// same reason, so it counts as made without the plugin.
		seen[uid] = &sighting{bypass: certain, missed: true}
	}
	return seen
}

// keep writes the file if the pods have changed.
func (k *knownBypasses) keep(seen map[types.UID]*sighting) error {
	var now []types.UID
	for _, uid := range slices.Sorted(maps.Keys(seen)) {
		if seen[uid].bypass >= certain {
			now = append(now, uid)
		}
	}
	if slices.Equal(now, k.stored) {
		return nil
	}
	data, err := json.Marshal(now)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(k.path), 0o700)
	}
	if err == nil {
		err = files.Replace(k.path, k.path+".new", bytes.NewReader(data), nil)
	}
	if err == nil {
		k.stored = now
	}
	return err
}
