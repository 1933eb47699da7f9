// Package mark writes annotations to every pod that say what the plugin's record of it says.
package mark

import (
	"encoding/json"

	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// mark is the values of the annotations. An empty reason and empty families are not written.
type mark struct{ status, netns, reason, families string }

// markOf returns the mark for a record.
func markOf(r record.Record) mark {
	if r.Decision == record.Redirect {
		return mark{annotation.Initialized, string(r.NetNS), r.Reason, r.Families}
	}
	return mark{annotation.NotRequired, string(r.NetNS), r.Reason, ""}
}

// isOn reports whether the pod has the mark. Earlier releases wrote no reason to redirected pods. Their marks count, so
// that these pods are not written again.
func (m mark) isOn(pod *corev1.Pod) bool {
	a := pod.Annotations
	if _, said := a[annotation.Reason]; !said && m.status == annotation.Initialized {
		m.reason = ""
	}
	return m == mark{a[annotation.Status], a[annotation.NetNS], a[annotation.Reason], a[annotation.Families]}
}

// patch returns a JSON merge patch with the mark, for the pod with that UID and no other one of its name.
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
		panic(err) // strings can always be encoded
	}
	return patch
}

// Current returns the record that counts for the pod. It is the latest of this boot, because a pod has one sandbox at a
// time. If several attachments are in that network namespace, a redirected one counts.
func Current(boot record.BootID, records []record.Record) (newest record.Record, found bool) {
	for _, r := range records {
		same := r.NetNS == newest.NetNS
		switch {
		case r.NetNS.Boot() != boot: // its network namespace is gone since the reboot
		case !found, !same && r.Time.After(newest.Time), same && r.Decision == record.Redirect:
			newest, found = r, true
		}
	}
	return newest, found
}
