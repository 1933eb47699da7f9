package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/flowcontrol"
)

// What is done about a mesh pod whose network was made without the plugin.
const (
	repairApply  = "apply"  // the plugin is run on it, as the container runtime would have
	repairDelete = "delete" // it is deleted, if a controller makes it again
	repairOff    = "off"    // it is reported
)

// Results of a repair, for the metric.
const (
	repairedBy   = "applied"
	repairGone   = "deleted"
	repairFailed = "failed"
)

const (
	repairWithin = 15 * time.Second // bounds one run of the plugin, which waits for the agent that runs it
	// Deleted pods may come back as they were, if the runtime runs no plugin: no more than a node's worth at once, then six a minute.
	deletions     = 110
	deletionsRate = 0.1
)

// repairer brings pods into the mesh that came too early, or that the runtime made without the plugin. It writes no rules: it runs
// the installed plugin.
type repairer struct {
	mode      string
	sandboxes sandboxes
	install   install.Config // whose binary and entry are used
	store     record.Store
	remove    func(ctx context.Context, namespace, name, uid string) error // from the API server
	limit     flowcontrol.PassiveRateLimiter
	metrics   *metrics
	log       *logrus.Logger
}

func newRepairer(o options, m *metrics, log *logrus.Logger, remove func(ctx context.Context, namespace, name, uid string) error) *repairer {
	return &repairer{
		mode: o.repair, sandboxes: sandboxes{o.cacheDir, o.netnsDir}, install: o.install, store: o.store, remove: remove,
		limit: flowcontrol.NewTokenBucketPassiveRateLimiter(deletionsRate, deletions), metrics: m, log: log,
	}
}

// concerns reports whether there is something to do about a pod that came too early, bypasses the mesh, or hangs although it is marked.
func (r *repairer) concerns(early, around, stuck bool) bool {
	switch r.mode {
	case repairApply:
		return early || around || stuck // the mark may be about a sandbox that is gone
	case repairDelete:
		return early || around
	}
	return early && !around // of that an Event has told
}

// remedy says what comes next for a pod without rules.
func (r *repairer) remedy() string {
	switch r.mode {
	case repairApply:
		return "The agent has the plugin write them now"
	case repairDelete:
		return "The agent deletes the pod if a controller makes it again"
	}
	return "Delete the pod, so that it is made again"
}

// repair deals with the pods, says in an Event what it could not do, and returns those that have their rules now.
func (r *repairer) repair(ctx context.Context, pods []*corev1.Pod, w *warner) (applied []*corev1.Pod) {
	var known []sandbox
	var err error
	if r.mode == repairApply && len(pods) > 0 {
		known, err = r.sandboxes.all()
	}
	for _, pod := range pods {
		switch {
		case ctx.Err() != nil:
			return applied
		case r.mode == repairApply:
			if r.apply(ctx, pod, w, known, err) {
				applied = append(applied, pod)
			}
		case r.mode == repairDelete:
			r.delete(ctx, pod, w)
		default:
			w.warn(pod, eventEarly, "The pod's network was made without istio-pod-network, so it has no packet rules and must not start: "+
				"its init wait does not end. Delete the pod, so that it is made again; with the chart's value repair the agent does more")
		}
	}
	return applied
}

// apply runs the plugin on the pod's network, and reports whether it succeeded.
func (r *repairer) apply(ctx context.Context, pod *corev1.Pod, w *warner, known []sandbox, err error) bool {
	var box sandbox
	var path string
	if err == nil {
		box, path, err = r.sandboxes.of(pod, known)
	}
	if err == nil {
		if _, failed := r.store.Get(box.containerID, box.ifName); failed == nil {
			return false // the plugin has been there, and its record is on its way
		}
		err = r.run(ctx, box, path)
	}
	log := r.log.WithFields(logrus.Fields{"pod": pod.Namespace + "/" + pod.Name, "sandbox": box.containerID})
	if err == nil {
		r.metrics.podRepairs.WithLabelValues(repairedBy).Inc()
		log.Info("ran the plugin for a pod whose network was made without it")
		w.retract(string(pod.UID), eventRepair)
		return true
	}
	r.metrics.podRepairs.WithLabelValues(repairFailed).Inc()
	w.warn(pod, eventRepair, "The pod's network was made without istio-pod-network, and its packet rules could not be written afterwards: %v. "+
		"Delete the pod, so that it is made again", err)
	return false
}

// run calls the installed plugin as the runtime does.
func (r *repairer) run(ctx context.Context, box sandbox, netns string) error {
	ctx, cancel := context.WithTimeout(ctx, repairWithin)
	defer cancel()
	config, err := r.configuration(box)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(r.install.BinDir, entry.Type))
	cmd.Env = []string{
		"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + box.containerID, "CNI_IFNAME=" + box.ifName, "CNI_NETNS=" + netns, "CNI_ARGS=" + box.args,
		"CNI_PATH=" + r.install.BinDir, "PATH=" + os.Getenv("PATH"),
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(config), &stdout, &stderr
	if err = cmd.Run(); err == nil {
		return nil
	}
	var said struct {
		Message string `json:"msg"`
		Details string `json:"details"`
	}
	if json.Unmarshal(stdout.Bytes(), &said) == nil && said.Message != "" {
		return fmt.Errorf("%s: %s", said.Message, said.Details)
	}
	return fmt.Errorf("running %s: %w: %s", cmd.Path, errors.Join(err, ctx.Err()), bytes.TrimSpace(stderr.Bytes()))
}

// configuration is the entry as a runtime hands it over. Without runtimeConfig the plugin asks the agent for everything.
func (r *repairer) configuration(box sandbox) ([]byte, error) {
	return r.install.Entry.With(map[string]any{
		"cniVersion": box.version, "name": box.network, "prevResult": box.result, "capabilities": nil,
	})
}

// delete has the pod made again.
func (r *repairer) delete(ctx context.Context, pod *corev1.Pod, w *warner) {
	if metav1.GetControllerOf(pod) == nil || isMirror(pod) {
		w.warn(pod, eventRepair, "The pod's network was made without istio-pod-network, so it has no packet rules. It is not deleted, because no "+
			"controller would make it again: make it again yourself")
		return
	}
	if !r.limit.TryAccept() {
		return // its turn will come
	}
	err := r.remove(ctx, pod.Namespace, pod.Name, string(pod.UID))
	switch {
	case err == nil:
		r.metrics.podRepairs.WithLabelValues(repairGone).Inc()
		w.warn(pod, eventDeleted, "The pod's network was made without istio-pod-network, so it had no packet rules: it was deleted, to be made again")
	case isGone(err):
	default:
		r.metrics.podRepairs.WithLabelValues(repairFailed).Inc()
		w.warn(pod, eventRepair, "The pod's network was made without istio-pod-network, so it has no packet rules, and deleting it failed: %v", err)
	}
}

// held returns the init container that keeps the pod from starting until its network is initialized, "" if there is none or it
// has let the pod go.
func held(pod *corev1.Pod) string {
	for _, c := range pod.Spec.InitContainers {
		if !isWait(c) {
			continue
		}
		for _, status := range pod.Status.InitContainerStatuses {
			if status.Name == c.Name && status.State.Terminated != nil && status.State.Terminated.ExitCode == 0 {
				return ""
			}
		}
		return c.Name
	}
	return ""
}
