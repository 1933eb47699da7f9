package explain

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/excerpt"
	"github.com/istio-pod-network/controller/internal/podfacts"
	corev1 "k8s.io/api/core/v1"
)

// Wait is the init wait, from its container's status.
type Wait struct {
	Container string     `json:"container"`
	State     string     `json:"state"` // not started, running, ended or failed
	Since     *time.Time `json:"since,omitempty"`
	Restarts  int32      `json:"restarts,omitempty"`
	Held      string     `json:"held,omitempty"` // why the kubelet does not start it
	Says      string     `json:"says,omitempty"` // its termination message
	Log       []string   `json:"log,omitempty"`  // its last lines, if it is running or has failed without a message
}

// Values of Wait.State.
const (
	waitNotStarted = "not started"
	waitRuns       = "running"
	waitEnded      = "ended"
	waitFailed     = "failed"
)

// Limits of the log: lines and bytes that are read, and bytes of each line that are shown.
const (
	lastLines   = 3
	mostOfLog   = 16 << 10
	longestLine = 400
)

// begins are the kubelet's reasons for containers that it is about to start or restart.
var begins = []string{"", "PodInitializing", "ContainerCreating", "CrashLoopBackOff"}

// waitIn returns the pod's init wait, nil if it has none.
func waitIn(pod *corev1.Pod) *Wait {
	name, status := podfacts.WaitStatus(pod)
	if name == "" {
		return nil
	}
	w := &Wait{Container: name, State: waitNotStarted, Restarts: status.RestartCount}
	if waiting := status.State.Waiting; waiting != nil && !slices.Contains(begins, waiting.Reason) {
		w.Held = strings.TrimSuffix(waiting.Reason+": "+strings.TrimSpace(waiting.Message), ": ")
	}
	last := status.LastTerminationState.Terminated
	switch running, ended := status.State.Running, status.State.Terminated; {
	case running != nil:
		w.State, w.Since = waitRuns, &running.StartedAt.Time
	case ended != nil && ended.ExitCode == 0:
		w.State, w.Since, last = waitEnded, &ended.FinishedAt.Time, ended
	case ended != nil:
		w.State, w.Since, last = waitFailed, &ended.FinishedAt.Time, ended
	case last != nil: // it will be restarted
		w.State, w.Since = waitFailed, &last.FinishedAt.Time
	}
	if last != nil && w.State != waitEnded {
		w.Says = strings.TrimSpace(last.Message)
	}
	return w
}

// hear stores the last lines of the init wait's log: what it waits for, or why it failed if it has no termination
// message.
func (l *Live) hear(ctx context.Context, from Source, pod *corev1.Pod) {
	w := l.Wait
	if w == nil || w.State != waitRuns && (w.State != waitFailed || w.Says != "") {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	text, _, err := from.Log(ctx, pod, w.Container, lastLines, mostOfLog)
	if err != nil {
		l.miss("the log of its init wait", "the verb get on pods/log in "+pod.Namespace, err)
		return
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			w.Log = append(w.Log, excerpt.Head(strings.ToValidUTF8(line, "?"), longestLine))
		}
	}
}

// words returns the last message of the wait, "" if there is none.
func (w *Wait) words() string {
	if w.Says != "" && w.State == waitFailed || len(w.Log) == 0 {
		return w.Says
	}
	return w.Log[len(w.Log)-1]
}

// judgeWait judges the init wait.
func (e *Explanation) judgeWait(now time.Time) {
	l := e.Live
	w := l.Wait
	if w == nil || w.State == waitEnded {
		return
	}
	said := w.words()
	next := fmt.Sprintf("Its log says for what it waits: kubectl -n %s logs %s -c %s", e.Namespace, e.Name, w.Container)
	if said != "" {
		said = ": " + said
		next = "The rules are written when the pod's network is made: its Events say what became of that"
		if l.Agent != "" {
			next += ", and the agent's log what became of its mark: " + e.agentsLog()
		} else {
			next += "."
		}
	}
	switch long := w.State == waitRuns && now.Sub(*w.Since) > inspect.StuckAfter; { // if no agent reports it
	case w.Held != "":
		next = "See what the container lacks on " + l.Node + ": " + e.described()
		if reason, _, _ := strings.Cut(w.Held, ":"); cluster.LacksImage(reason) {
			next = "The image of " + w.Container + " has to be pullable from " + l.Node + "."
		}
		l.find(NotWell, "its init wait cannot start: "+w.Held, next)
	case w.State == waitFailed, w.Restarts > 0:
		l.find(NotWell, "its init wait has given up"+said, next)
	case l.told != nil && l.told.WaitsLong, l.told == nil && long:
		l.find(NotWell, "its init wait does not end"+said, next)
	case w.State == waitRuns:
		l.note("its init wait goes on, since %s%s", w.Since.UTC().Format(time.RFC3339), said)
	}
}
