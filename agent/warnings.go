package agent

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kuberecord "k8s.io/client-go/tools/record"
)

// Reasons of the Events, all of type Warning and about a pod.
const (
	eventNoProxy    = "OptedInWithoutProxy"
	eventForeign    = "ForeignRules"
	eventSharedUser = "ProxyUserShared"
	eventInvalid    = "InvalidMeshAnnotation"
	eventStuck      = "InitWaitStuck"
	eventBypass     = "MeshBypassed"
	eventRefused    = "MarkRefused"
	eventEarly      = "CameTooEarly"
	eventRepair     = "RepairFailed"
	eventDeleted    = "DeletedForRepair"
)

// warner writes an Event for everything it is told, and not again soon, however often it is told so.
type warner struct {
	recorder kuberecord.EventRecorder
	log      *logrus.Logger

	mu   sync.Mutex
	said map[warning]saying
}

// saying is what was said, and when.
type saying struct {
	text string
	at   time.Time
}

// sayAgain is after how long something that still holds is said again: Events get lost while the API server is in trouble, and live for an hour.
const sayAgain = 15 * time.Minute

// warning is one thing to say about one pod.
type warning struct{ uid, reason string }

// newWarner returns a warner, and what has to be called in the end.
func newWarner(api *apiServer, node string, log *logrus.Logger) (w *warner, stop func()) {
	broadcaster := kuberecord.NewBroadcaster() // with client-go's limits: 25 at once for a pod, then one in five minutes
	broadcaster.StartRecordingToSink(eventSink{api.core})
	source := corev1.EventSource{Component: "istio-pod-network-agent", Host: node}
	return &warner{recorder: broadcaster.NewRecorder(runtime.NewScheme(), source), log: log, said: map[warning]saying{}}, broadcaster.Shutdown
}

// warn says something about a pod unless that was the last thing said about it for this reason, not long ago.
func (w *warner) warn(pod *corev1.Pod, reason, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	key := warning{string(pod.UID), reason}
	w.mu.Lock()
	last := w.said[key]
	known := last.text == text && time.Since(last.at) < sayAgain
	if !known {
		w.said[key] = saying{text, time.Now()}
	}
	w.mu.Unlock()
	if known {
		return
	}
	w.log.WithFields(logrus.Fields{"pod": pod.Namespace + "/" + pod.Name, "event": reason}).Warn(text)
	w.recorder.Event(&corev1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}, corev1.EventTypeWarning, reason, text)
}

// retract forgets what was said, so that it is said again when it is true again.
func (w *warner) retract(uid, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.said, warning{uid, reason})
}

// forget drops what was said about pods that are not there any more.
func (w *warner) forget(exists func(uid string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.said {
		if !exists(key.uid) {
			delete(w.said, key)
		}
	}
}

// aboutRecord says what a person should know of the plugin's decision.
func (w *warner) aboutRecord(pod *corev1.Pod, r record.Record) {
	switch redirect.Reason(r.Reason) {
	case redirect.ReasonNoProxy:
		w.warn(pod, eventNoProxy, "The pod opted in to the mesh, but has no container %s: no packet rules were written. "+
			"Have the sidecar injected, or take the opt-in away", redirect.ProxyContainer)
	case redirect.ReasonForeignRules:
		w.warn(pod, eventForeign, "Packet rules of Istio's own tools were in the pod's network namespace already, so none were added: "+
			"only one of Istio CNI, istio-init and istio-pod-network may be in charge of a pod. %s", r.Detail)
	}
}

// aboutSettings says what is wrong with a pod's own settings, by the same decision that the plugin makes.
func (w *warner) aboutSettings(pod *corev1.Pod, namespace map[string]string, policy redirect.Policy) {
	facts, refused := factsOf(pod, namespace), ""
	decision, err := redirect.Decide(facts, policy)
	var shared *redirect.SharedUserError
	switch {
	case errors.As(err, &shared):
		refused = ". Such a pod is not let start (sharedProxyUser)"
	case err != nil:
		w.warn(pod, eventInvalid, "The pod cannot start: %v", err)
	case decision.Verdict == redirect.Redirect:
		shared = asRun(facts, pod.Status).SharesProxyUser(decision.Spec)
	}
	if shared != nil {
		w.warn(pod, eventSharedUser, "Container %s runs with the %s %d of the sidecar, so its traffic is taken for the sidecar's own and "+
			"bypasses the mesh. Give it another%s", shared.Container, shared.What, shared.ID, refused)
	}
}

// asRun gives the containers the users that their status tells: a user that only the image names is known from there alone, where the runtime
// reports it (Kubernetes 1.33 with containerd 2 or CRI-O 1.32).
func asRun(facts redirect.Pod, status corev1.PodStatus) redirect.Pod {
	for _, known := range []struct {
		containers []redirect.Container
		statuses   []corev1.ContainerStatus
	}{{facts.Containers, status.ContainerStatuses}, {facts.InitContainers, status.InitContainerStatuses}} {
		for _, s := range known.statuses {
			i := slices.IndexFunc(known.containers, func(c redirect.Container) bool { return c.Name == s.Name })
			if i >= 0 && s.User != nil && s.User.Linux != nil {
				known.containers[i].RunAsUser, known.containers[i].RunAsGroup = &s.User.Linux.UID, &s.User.Linux.GID
			}
		}
	}
	return facts
}

// waiting returns the init container that waits for the mark and still runs, "" if there is none.
func waiting(pod *corev1.Pod) (name string, running *corev1.ContainerStateRunning) {
	for _, status := range pod.Status.InitContainerStatuses {
		i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == status.Name })
		if i >= 0 && isWait(pod.Spec.InitContainers[i]) {
			return status.Name, status.State.Running
		}
	}
	return "", nil
}

// waitProgram is what runs in an init wait; under the names of Istio's own containers it may also be Istio's validation.
const waitProgram = "istio-pod-network-wait"

func isWait(c corev1.Container) bool {
	if len(c.Command) > 0 && path.Base(c.Command[0]) == waitProgram {
		return true
	}
	return c.Name == "istio-validation" || c.Name == redirect.InitContainer && !isNetAdmin(c)
}
