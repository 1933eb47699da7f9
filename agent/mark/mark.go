// Package mark tells every pod, by annotations, what the plugin's record of it says.
package mark

import (
	"encoding/json"

	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// mark is what a pod is told by annotations. An empty reason is no annotation, and so are no families.
type mark struct{ status, netns, reason, families string }

// markOf is what a record says to its pod.
func markOf(r record.Record) mark {
	if r.Decision == record.Redirect {
		return mark{annotation.Initialized, string(r.NetNS), r.Reason, r.Families}
	}
	return mark{annotation.NotRequired, string(r.NetNS), r.Reason, ""}
}

// isOn reports whether the pod carries the mark. Earlier releases gave a redirected pod no reason: what they have
// marked is not written to again.
func (m mark) isOn(pod *corev1.Pod) bool {
	a := pod.Annotations
	if _, said := a[annotation.Reason]; !said && m.status == annotation.Initialized {
		m.reason = ""
	}
	return m == mark{a[annotation.Status], a[annotation.NetNS], a[annotation.Reason], a[annotation.Families]}
}

// patch renders the mark as a JSON merge patch for the pod with that UID and no other of its name.
func (m mark) patch(uid types.UID) []byte {
	annotations := map[string]*string{annotation.Status: &m.status, annotation.NetNS: &m.netns, annotation.Reason: nil,
		annotation.Families: nil}
	for key, value := range map[string]*string{annotation.Reason: &m.reason, annotation.Families: &m.families} {
		if *value != "" {
			annotations[key] = value
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid, "annotations": annotations}})
	if err != nil {
		panic(err) // strings always can be encoded
	}
	return patch
}

// Current is the record that speaks for the pod: the latest of this boot, since a pod has one sandbox at a time. Of
// several attachments to the same network namespace, one that was redirected decides.
func Current(boot record.BootID, records []record.Record) (newest record.Record, found bool) {
	for _, r := range records {
		same := r.NetNS == newest.NetNS
		switch {
		case r.NetNS.Boot() != boot: // a network namespace does not survive it
		case !found, !same && r.Time.After(newest.Time), same && r.Decision == record.Redirect:
			newest, found = r, true
		}
	}
	return newest, found
}
