package agent

import (
	"encoding/json"
	"strings"

	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
)

// mark is what a pod is told by annotations. An empty reason is no annotation.
type mark struct{ status, netns, reason string }

// markOf is what a record says to its pod.
func markOf(r record.Record) mark {
	if r.Decision == record.Redirect {
		return mark{record.StatusInitialized, r.NetNS, ""}
	}
	return mark{record.StatusNotRequired, r.NetNS, r.Reason}
}

// isOn reports whether the pod carries the mark.
func (m mark) isOn(pod *corev1.Pod) bool {
	return m == mark{pod.Annotations[record.KeyStatus], pod.Annotations[record.KeyNetNS], pod.Annotations[record.KeyReason]}
}

// patch renders the mark as a JSON merge patch for the pod with that UID and no other of its name.
func (m mark) patch(uid string) []byte {
	annotations := map[string]*string{record.KeyStatus: &m.status, record.KeyNetNS: &m.netns, record.KeyReason: nil}
	if m.reason != "" {
		annotations[record.KeyReason] = &m.reason
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid, "annotations": annotations}})
	if err != nil {
		panic(err) // strings always can be encoded
	}
	return patch
}

// bootID is what the netns of every record of this boot starts with.
type bootID string

// isOf reports whether the record was made since this boot: a network namespace does not survive it.
func (b bootID) isOf(r record.Record) bool { return strings.HasPrefix(r.NetNS, string(b)+"/") }

// current is the record that speaks for the pod: the latest of this boot, since a pod has one sandbox at a time. Of several
// attachments to the same network namespace, one that was redirected decides.
func (b bootID) current(records []record.Record) (newest record.Record, found bool) {
	for _, r := range records {
		same := r.NetNS == newest.NetNS
		switch {
		case !b.isOf(r):
		case !found, !same && r.Time.After(newest.Time), same && r.Decision == record.Redirect:
			newest, found = r, true
		}
	}
	return newest, found
}
