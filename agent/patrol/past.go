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

// verdict is what a pod without a record is. What counts is what was said when its network was made: an annotation that
// is set later, on the pod or on its namespace, is about its next network.
type verdict string

const (
	fine    verdict = ""               // not in the mesh, or nothing that we know of
	bypass  verdict = "bypass"         // in the mesh when its network was made, and the plugin was not run, or was away
	late    verdict = "opted-in-later" // in the mesh by what is said now, not by what was said then
	unknown verdict = "unknown"        // in the mesh by what is said now; what was said then cannot be known
)

// Outside are the verdicts about pods that are outside the mesh although what is said now puts them into it.
var Outside = []string{string(late), string(unknown)}

// Questions are those that the plugin has asked. For a pod about which it has asked, the runtime has run it.
type Questions interface {
	HeardSince() time.Time // since when none can be missed, zero if they can
	Asked(uid types.UID) bool
	Forget(exists func(uid types.UID) bool)
}

// judge says what a pod is that has no record.
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
	if p.redirects(facts) { // whatever the namespace says; if it said no, there would be a record
		return bypass
	}
	// Without a word of its own, the plugin asks what the namespace says, and leaves no record of a no.
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

// isOurs reports whether the plugin should have seen to the pod's network: it was made after the plugin was chained. So
// is one that was made while the plugin had gone for a while: nobody else was in charge of it. One that its init wait
// holds then came too early, which is told of elsewhere.
func (p *Patrol) isOurs(pod *corev1.Pod, s *sighting) bool {
	if !p.chained.IsZero() && kube.HasNetworkSince(pod, p.chained) {
		s.missed = false
		return true
	}
	s.missed = !p.first.IsZero() && kube.HasNetworkSince(pod, p.first) && !podfacts.IsHeld(pod)
	return s.missed
}

// hasHeardAll reports whether this agent has heard every question about the pod: it was there, and saw the pod, before
// the pod had a network. The times in a status alone do not tell.
func (p *Patrol) hasHeardAll(pod *corev1.Pod) bool {
	_, seen := p.Pods.AnnotationsBefore(pod)
	since := p.Questions.HeardSince()
	return seen && !since.IsZero() && kube.HasNetworkSince(pod, since)
}

// redirects reports whether the plugin redirects such a pod.
func (p *Patrol) redirects(facts redirect.Pod) bool {
	d, err := redirect.Decide(facts, p.Policy)
	return err == nil && d.Verdict == redirect.Redirect
}

// annotationsThen returns the annotations that the pod had when it got its network: from libcni's cache, else as the
// watch has shown them. What is known of a network stays known.
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

// sandboxes are those of libcni's cache, read once in a round. Where there is no such cache, there are none.
func (p *Patrol) sandboxes() []sandbox {
	if !p.cacheRead {
		p.cached, _ = p.Repairer.sandboxes.all()
		p.cacheRead = true
	}
	return p.cached
}

// tellOutside says of a pod that is outside the mesh that it is, and how it gets in.
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

// maxKnown is more bytes than the UIDs of all pods that a node may have.
const maxKnown = 1 << 20

// knownBypasses is the file that keeps, by UID, the pods that are known to bypass the mesh, for the next agent of this
// boot: it may not find out again.
type knownBypasses struct {
	path   string
	stored []types.UID
}

// load returns what an earlier agent has found. A file that cannot be read is none.
func (k *knownBypasses) load() map[types.UID]*sighting {
	seen := map[types.UID]*sighting{}
	if data, err := files.Read(k.path, maxKnown); err == nil {
		_ = json.Unmarshal(data, &k.stored)
	}
	for _, uid := range k.stored {
		// Why it has no rules is not kept: its successor may have none either.
		seen[uid] = &sighting{bypass: certain, missed: true}
	}
	return seen
}

// keep writes the file if it holds others.
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
