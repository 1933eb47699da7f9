package patrol

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kuberecord "k8s.io/client-go/tools/record"
)

// Reasons of the Events. All are about a pod. Their type is Warning, except for eventRenewed.
const (
	eventNoProxy    = "OptedInWithoutProxy"
	eventForeign    = "ForeignRules"
	eventSharedUser = "ProxyUserShared"
	eventLeftOut    = "OwnerGroupLeftOut"
	eventFamily     = "IPv6Refused"
	eventEscalation = "PrivilegeEscalationAllowed"
	eventInvalid    = "InvalidMeshAnnotation"
	eventStuck      = "InitWaitStuck"
	eventBypass     = "MeshBypassed"
	eventRefused    = "MarkRefused"
	eventEarly      = "CameTooEarly"
	eventRepair     = "RepairFailed"
	eventDeleted    = "DeletedForRepair"
	eventLate       = "OptedInLater"
	eventUnknown    = "MeshUnknown"
	eventOlder      = "OlderRules"
	eventRenewal    = "RenewalFailed"
	eventRenewed    = "RulesRenewed"
)

// Warner creates an Event for every warning. It does not soon repeat one, however often it is called.
type Warner struct {
	recorder kuberecord.EventRecorder
	log      *logrus.Logger

	mu        sync.Mutex
	sent      map[warning]sentEvent
	workloads map[workloadWarning]time.Time // when one of its pods last got an Event
}

// warning identifies the warnings about one pod for one reason.
type warning struct {
	uid    types.UID
	reason string
}

// sentEvent is the last Event of a warning.
type sentEvent struct {
	text string
	at   time.Time
}

// workloadWarning identifies a warning about the pods of a workload. It is a hash, because it is remembered when the
// pod is gone: whoever may create a pod chooses the names of its owner and its containers, up to a megabyte.
type workloadWarning [sha256.Size]byte

func workloadWarningOf(workload, reason, text string) workloadWarning {
	return sha256.Sum256([]byte(workload + "\x00" + reason + "\x00" + text))
}

// saidOfWorkloads are the reasons that follow from a pod's template. They are true of all its pods, so an Event for
// each pod would be as many writes as the marks.
var saidOfWorkloads = []string{eventEscalation, eventFamily}

// A workload is warned about again after a day. This is the limit of how many are remembered.
const (
	workloadAfter = 24 * time.Hour
	mostWorkloads = 4096
)

// repeatAfter is the time after which an Event is repeated if its reason persists: Events may be lost while the API
// server has problems, and expire after an hour. What is true of many pods and does not harm one by itself is reported
// once.
const repeatAfter = 15 * time.Minute

// saidOnce are the reasons that may persist as long as a pod exists. docs/agent.md says so for each.
var saidOnce = []string{eventEscalation, eventFamily, eventLate, eventUnknown, eventOlder, eventRefused}

// NewWarner returns a Warner that sends Events by the recorder.
func NewWarner(recorder kuberecord.EventRecorder, log *logrus.Logger) *Warner {
	return &Warner{recorder: recorder, log: log, sent: map[warning]sentEvent{},
		workloads: map[workloadWarning]time.Time{}}
}

// warn creates an Event, unless the last one about the pod for this reason had the same text and is recent.
func (w *Warner) warn(pod *corev1.Pod, reason, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	key := warning{pod.UID, reason}
	w.mu.Lock()
	last := w.sent[key]
	known := last.text == text && (slices.Contains(saidOnce, reason) || time.Since(last.at) < repeatAfter) ||
		reason == eventRefused && last.text != "" // with any text: a webhook may number its refusals
	if !known {
		w.sent[key] = sentEvent{text, time.Now()}
		known = slices.Contains(saidOfWorkloads, reason) && w.saidOf(workloadOf(pod), reason, text)
	}
	w.mu.Unlock()
	if known {
		return
	}
	w.log.WithFields(logrus.Fields{"pod": pod.Namespace + "/" + pod.Name, "event": reason}).Warn(text)
	w.send(pod, corev1.EventTypeWarning, reason, text)
}

// saidOf reports whether the same was recently reported for another pod of the workload, and remembers it.
func (w *Warner) saidOf(workload, reason, text string) bool {
	if workload == "" {
		return false
	}
	key := workloadWarningOf(workload, reason, text)
	if at, said := w.workloads[key]; said && time.Since(at) < workloadAfter {
		return true
	}
	if len(w.workloads) >= mostWorkloads {
		clear(w.workloads)
	}
	w.workloads[key] = time.Now()
	return false
}

// workloadOf names what creates pods like this one, or returns "" if nothing does. For a ReplicaSet it is the
// Deployment, and for a Job the CronJob: their names are the part before the last hyphen. An owner whose own name has a
// hyphen is treated like others in the namespace with the same start.
func workloadOf(pod *corev1.Pod) string {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return ""
	}
	name := owner.Name
	if i := strings.LastIndexByte(name, '-'); i > 0 && (owner.Kind == "ReplicaSet" || owner.Kind == "Job") {
		name = name[:i]
	}
	return pod.Namespace + "/" + owner.Kind + "/" + name
}

// tell reports what was done to a pod. It is not a warning.
func (w *Warner) tell(pod *corev1.Pod, reason, text string) {
	w.send(pod, corev1.EventTypeNormal, reason, text)
}

func (w *Warner) send(pod *corev1.Pod, kind, reason, text string) {
	w.recorder.Event(&corev1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
		ResourceVersion: pod.ResourceVersion,
	}, kind, reason, text)
}

// retract forgets a warning, so that it is reported again when it is true again.
func (w *Warner) retract(uid types.UID, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sent, warning{uid, reason})
}

// forget drops the warnings about pods that no longer exist.
func (w *Warner) forget(exists func(uid types.UID) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.sent, func(key warning, _ sentEvent) bool { return !exists(key.uid) })
}

// AboutRecord reports what an operator should know of the plugin's decision.
func (w *Warner) AboutRecord(pod *corev1.Pod, r record.Record) {
	switch redirect.Reason(r.Reason) {
	case redirect.ReasonNoProxy:
		w.warn(pod, eventNoProxy, "The pod opted in to the mesh, but has no container %s: no packet rules were written. "+
			"Have the sidecar injected, or take the opt-in away", redirect.ProxyContainer)
	case redirect.ReasonForeignRules:
		w.warn(pod, eventForeign, "Packet rules of Istio's own tools were in the pod's network namespace already, so none "+
			"were added: only one of Istio CNI, istio-init and istio-pod-network may be in charge of a pod. %s", r.Detail)
	}
}

// AboutMark is called for every mark that is on a pod: a later refusal is then reported again.
func (w *Warner) AboutMark(pod *corev1.Pod) { w.retract(pod.UID, eventRefused) }

// AboutRefusedMark reports that the pod cannot be marked, and why.
func (w *Warner) AboutRefusedMark(pod *corev1.Pod, err error) {
	w.warn(pod, eventRefused, "The API server refuses the annotations that mark the pod as initialized: %v", err)
}

// aboutSettings warns about a pod's own settings, by the same decision as the plugin's. It returns whether its sidecar
// refuses one of the families in which the pod has addresses. r is the pod's record, or zero. its is what is known of
// the settings in it: the sidecar's IDs in the rules are not those of a later annotation. told says that an earlier
// agent has marked the pod, and has reported what is true of many pods: after an upgrade of all agents that would be an
// Event for each of them.
func (w *Warner) aboutSettings(
	pod *corev1.Pod, namespace map[string]string, policy redirect.Policy, r record.Record, its written, told bool,
) (refuses bool) {
	decision, err := redirect.Decide(podfacts.Of(pod, namespace), policy)
	var shared *redirect.SharedUserError
	if its.uid != 0 && (err != nil || decision.Verdict != redirect.Redirect) {
		w.aboutPrivileges(pod, podfacts.AsRun(pod, namespace).SharesProxyUser(its.as(decision.Spec)), told)
	}
	switch {
	case errors.As(err, &shared):
		w.aboutSharedUser(pod, shared, ". Such a pod is not let start (sharedProxyUser)")
	case err != nil:
		w.warn(pod, eventInvalid, "The pod cannot start: %v", err)
	case decision.Verdict == redirect.Redirect:
		runs := podfacts.AsRun(pod, namespace)
		decision.Spec = its.as(decision.Spec)
		w.aboutPrivileges(pod, runs.SharesProxyUser(decision.Spec), told)
		w.aboutLeftOut(pod, runs.LeftOut(decision.Spec))
		if r.Decision == record.Redirect { // what was written counts, not what would be written now
			decision.Spec.Families = redirect.Captured(r.Families)
		}
		refuses = r.Decision != record.Untouched && w.aboutFamilies(pod, runs, decision.Spec.Families, told)
	}
	return refuses
}

// aboutFamilies warns if a sidecar that listens in IPv4 only receives its pod's IPv6, too. Traffic that is not captured
// bypasses the sidecar, so both families are captured unless the operator says otherwise. Istio's sidecar without dual
// stack listens in IPv4 only in a pod with both: see redirect.Spec.ForAddresses. If its environment is unknown, nothing
// is reported.
func (w *Warner) aboutFamilies(
	pod *corev1.Pod, facts redirect.Pod, captured redirect.Captured, told bool,
) (refuses bool) {
	dual, known := facts.DualStack()
	if !podfacts.IsDualStack(pod) || dual || !known || captured == redirect.CapturedProxy ||
		!slices.Contains(captured.Of(), redirect.IPv6) {
		return false
	}
	if told {
		return true
	}
	w.warn(pod, eventFamily,
		"The pod has addresses of both families and its sidecar, without %s, listens in IPv4 alone: all "+
			"its IPv6 is captured and refused. Set %s: \"true\" in the sidecar's proxyMetadata and for istiod, or have its "+
			"IPv6 go around the sidecar (redirect.families: proxy)",
		redirect.EnvDualStack, redirect.EnvDualStack)
	return true
}

// aboutPrivileges warns about ways by which a mesh pod that may start could bypass its sidecar.
func (w *Warner) aboutPrivileges(pod *corev1.Pod, shared *redirect.SharedUserError, told bool) {
	if shared != nil {
		w.aboutSharedUser(pod, shared, "")
	}
	if names := podfacts.MayEscalate(pod); len(names) > 0 && !told {
		w.warn(pod, eventEscalation, "In %s a program that is setuid or setgid to the sidecar's user or group bypasses the "+
			"mesh, and nobody sees it. Set allowPrivilegeEscalation: false", strings.Join(names, ", "))
	}
}

// aboutLeftOut warns about a container beside the sidecar whose group is not captured.
func (w *Warner) aboutLeftOut(pod *corev1.Pod, left *redirect.LeftOut) {
	if left != nil {
		w.warn(pod, eventLeftOut,
			"Container %s runs in the group %d, whose outbound traffic is left out of the redirection, "+
				"and bypasses the mesh. Give it another: such a group is for init containers that end before the sidecar starts",
			left.Container, left.Group)
	}
}

func (w *Warner) aboutSharedUser(pod *corev1.Pod, shared *redirect.SharedUserError, refused string) {
	if shared.Beside() {
		w.warn(pod, eventSharedUser,
			"Container %s has the group %d of the sidecar by its %s, so a program that is setgid to "+
				"that group bypasses the mesh. Give it another%s", shared.Container, shared.ID, shared.What, refused)
		return
	}
	w.warn(pod, eventSharedUser, "Container %s runs with the %s %d of the sidecar, so its traffic is taken for the "+
		"sidecar's own and bypasses the mesh. Give it another%s", shared.Container, shared.What, shared.ID, refused)
}
