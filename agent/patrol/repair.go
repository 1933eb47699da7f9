package patrol

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

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"
)

// Mode says what to do about a mesh pod whose network was made without the plugin.
type Mode string

// The modes.
const (
	Apply  Mode = "apply"  // run the plugin for it, as the container runtime would have
	Delete Mode = "delete" // delete it, if a controller creates it again
	Off    Mode = "off"    // report it
)

// Modes lists all modes.
var Modes = []Mode{Apply, Delete, Off}

// Results of a repair, for the metric.
const (
	applied = "applied"
	deleted = "deleted"
	failed  = "failed"
)

// Results lists the results of a repair.
var Results = []string{applied, deleted, failed}

const (
	repairWithin = 15 * time.Second // limits one run of the plugin, which waits for an answer of this agent
	// leftWithin limits the wait for a process that the plugin has left with its output open.
	leftWithin = time.Second
	// mostSaid limits how many bytes of the plugin's output are kept: a result, or an error of at most 1 KiB.
	mostSaid = 1 << 20
	// pluginMemory keeps the heap of a plugin small that has much to read: it shares the memory of the agent's
	// container.
	pluginMemory = "GOMEMLIMIT=32MiB"
	// The successors of deleted pods bypass the mesh too if the runtime runs no plugin. So only the pods of one node
	// are deleted at once, and then six a minute.
	deletions     = 110
	deletionsRate = 0.1
)

// RepairConfig has the settings and dependencies of a Repairer.
type RepairConfig struct {
	Mode     Mode
	CacheDir string // libcni's cache
	NetNSDir string // the directory in which the runtime has the network namespaces
	Plugin   string // path of the installed plugin
	Look     string // path of istio-pod-network-look
	Entry    entry.Entry
	Store    record.Store
	Pods     PodDeleter
	Warner   *Warner
	Repairs  *prometheus.CounterVec // by result
	Log      *logrus.Logger
}

// PodDeleter deletes the pod with that UID. Its errors are those of the API server.
type PodDeleter interface {
	DeletePod(ctx context.Context, namespace, name string, uid types.UID) error
}

// Repairer brings pods into the mesh that came too early, or that the runtime created without the plugin. It writes no
// rules itself: it runs the installed plugin.
type Repairer struct {
	RepairConfig
	sandboxes sandboxes
	limit     flowcontrol.PassiveRateLimiter
	turn      chan struct{} // held by the process that works in the network namespace of a pod
}

// NewRepairer returns a Repairer.
func NewRepairer(c RepairConfig) *Repairer {
	return &Repairer{
		RepairConfig: c, sandboxes: sandboxes{dir: c.CacheDir, netns: c.NetNSDir},
		limit: flowcontrol.NewTokenBucketPassiveRateLimiter(deletionsRate, deletions), turn: make(chan struct{}, 1),
	}
}

// concerns reports whether to act on a pod that came too early, bypasses the mesh, or hangs although it is marked.
func (r *Repairer) concerns(early, bypasses, stuck bool) bool {
	switch r.Mode {
	case Apply:
		return early || bypasses || stuck // the mark may be about a sandbox that is gone
	case Delete:
		return early || bypasses
	}
	return early && !bypasses // an Event has reported the bypass
}

// remedy says what will happen to a pod without rules.
func (r *Repairer) remedy() string {
	switch r.Mode {
	case Apply:
		return "The agent has the plugin write them now"
	case Delete:
		return "The agent deletes the pod if a controller makes it again"
	}
	return "Delete the pod, so that it is made again"
}

// repair repairs the pods, reports failures in Events, and returns those that now have their rules.
func (r *Repairer) repair(ctx context.Context, pods []*corev1.Pod) (repaired []*corev1.Pod) {
	var known []sandbox
	var err error
	if r.Mode == Apply && len(pods) > 0 {
		known, err = r.sandboxes.all()
	}
	for _, pod := range pods {
		switch {
		case ctx.Err() != nil:
			return repaired
		case r.Mode == Apply:
			if r.apply(ctx, pod, known, err) {
				repaired = append(repaired, pod)
			}
		case r.Mode == Delete:
			r.delete(ctx, pod)
		default:
			r.Warner.warn(pod, eventEarly, "The pod's network was made without istio-pod-network, so it has no packet rules "+
				"and must not start: its init wait does not end. Delete the pod, so that it is made again; with the chart's "+
				"value repair the agent does more")
		}
	}
	return repaired
}

// apply runs the plugin for the pod's network, and returns whether it succeeded.
func (r *Repairer) apply(ctx context.Context, pod *corev1.Pod, known []sandbox, err error) bool {
	var its sandbox
	var netns string
	if err == nil {
		its, netns, err = r.sandboxes.of(pod, known)
	}
	if err == nil {
		if _, absent := r.Store.Get(its.containerID, its.ifName); absent == nil {
			return false // the plugin has run, and the watch of its record is late
		}
		err = r.run(ctx, "ADD", r.Plugin, its, netns)
	}
	if err != nil {
		r.Repairs.WithLabelValues(failed).Inc()
		r.Warner.warn(pod, eventRepair, "The pod's network was made without istio-pod-network, and its packet rules could "+
			"not be written afterwards: %v. Delete the pod, so that it is made again", err)
		return false
	}
	r.Repairs.WithLabelValues(applied).Inc()
	r.Log.WithFields(logrus.Fields{"pod": pod.Namespace + "/" + pod.Name, "sandbox": its.containerID}).
		Info("ran the plugin for a pod whose network was made without it")
	r.Warner.retract(pod.UID, eventRepair)
	return true
}

// refusal is an error that a plugin has printed.
type refusal struct {
	Code    uint   `json:"code"`
	Message string `json:"msg"`
	Details string `json:"details"`
}

// Error returns the plugin's text.
func (r *refusal) Error() string { return r.Message + ": " + r.Details }

// errBusy is the error for a caller that has not got its turn in time.
var errBusy = errors.New("the agent looks into the network of another pod: ask again")

// begin waits for the turn of a process, plugin or look, in the network namespace of a pod. end gives it up. Only one
// such process runs at a time, because the agent's container has the memory for only one namespace that somebody has
// filled. A caller with a deadline waits for half of its time, and has the other half to work.
func (r *Repairer) begin(ctx context.Context) (end func(), err error) {
	wait := ctx
	if limit, has := ctx.Deadline(); has {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, time.Until(limit)/2)
		defer cancel()
	}
	end = func() { <-r.turn }
	select {
	case r.turn <- struct{}{}: // also without time left, if nobody else is working
		return end, nil
	default:
	}
	select {
	case r.turn <- struct{}{}:
		return end, nil
	case <-wait.Done():
		return nil, errBusy
	}
}

// run calls a plugin as the runtime does, when it is its turn.
func (r *Repairer) run(ctx context.Context, verb, plugin string, s sandbox, netns string) error {
	config, err := r.configuration(s)
	if err != nil {
		return err
	}
	end, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, repairWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, plugin)
	cmd.WaitDelay = leftWithin
	cmd.Env = []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + s.containerID, "CNI_IFNAME=" + s.ifName, "CNI_NETNS=" + netns,
		"CNI_ARGS=" + s.args, "CNI_PATH=" + filepath.Dir(plugin), "PATH=" + os.Getenv("PATH"), pluginMemory,
	}
	stdout, stderr := &capped{most: mostSaid}, &capped{most: mostSaid}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(config), stdout, stderr
	if err = cmd.Run(); err == nil || errors.Is(err, exec.ErrWaitDelay) { // it has succeeded, but left a process
		return nil
	}
	var refused refusal
	if json.Unmarshal(stdout.kept.Bytes(), &refused) == nil && refused.Message != "" {
		return &refused
	}
	return fmt.Errorf("running %s: %w: %s", cmd.Path, errors.Join(err, ctx.Err()), bytes.TrimSpace(stderr.kept.Bytes()))
}

// configuration returns the entry as a runtime passes it. Without runtimeConfig the plugin asks the agent for
// everything.
func (r *Repairer) configuration(s sandbox) ([]byte, error) {
	return r.Entry.With(map[string]any{
		"cniVersion": s.version, "name": s.network, "prevResult": s.result, "capabilities": nil,
	})
}

// delete deletes the pod, so that its controller creates it again.
func (r *Repairer) delete(ctx context.Context, pod *corev1.Pod) {
	if metav1.GetControllerOf(pod) == nil || kube.IsMirror(pod) {
		r.Warner.warn(pod, eventRepair, "The pod's network was made without istio-pod-network, so it has no packet rules. "+
			"It is not deleted, because no controller would make it again: make it again yourself")
		return
	}
	if !r.limit.TryAccept() {
		return // a later round will delete it
	}
	err := r.Pods.DeletePod(ctx, pod.Namespace, pod.Name, pod.UID)
	switch {
	case err == nil:
		r.Repairs.WithLabelValues(deleted).Inc()
		r.Warner.warn(pod, eventDeleted, "The pod's network was made without istio-pod-network, so it had no packet rules: "+
			"it was deleted, to be made again")
	case !kube.IsGone(err):
		r.Repairs.WithLabelValues(failed).Inc()
		r.Warner.warn(pod, eventRepair, "The pod's network was made without istio-pod-network, so it has no packet rules, "+
			"and deleting it failed: %v", err)
	}
}
