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

// Wait is the init wait, as its container's status has it.
type Wait struct {
	Container string     `json:"container"`
	State     string     `json:"state"` // not started, running, ended or failed
	Since     *time.Time `json:"since,omitempty"`
	Restarts  int32      `json:"restarts,omitempty"`
	Held      string     `json:"held,omitempty"` // why the kubelet does not start it
	Says      string     `json:"says,omitempty"` // its termination message
	Log       []string   `json:"log,omitempty"`  // its last lines, of one that runs, or has failed without a message
}

// States of a wait.
const (
	waitNotStarted = "not started"
	waitRuns       = "running"
	waitEnded      = "ended"
	waitFailed     = "failed"
)

// Of its log so many lines are read, of so many bytes together, and so many of each are told.
const (
	lastLines   = 3
	mostOfLog   = 16 << 10
	longestLine = 400
)

// begins are the kubelet's reasons of containers that it is about to start, or will start again.
var begins = []string{"", "PodInitializing", "ContainerCreating", "CrashLoopBackOff"}

// waitIn is the pod's init wait, nil for none.
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
	case last != nil: // it will be started again
		w.State, w.Since = waitFailed, &last.FinishedAt.Time
	}
	if last != nil && w.State != waitEnded {
		w.Says = strings.TrimSpace(last.Message)
	}
	return w
}

// hear notes what the init wait says by its log: what it waits for, or why it has failed if its last words do not say.
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

// words are the last that the wait has said, "" for none that are known.
func (w *Wait) words() string {
	if w.Says != "" && w.State == waitFailed || len(w.Log) == 0 {
		return w.Says
	}
	return w.Log[len(w.Log)-1]
}

// judgeWait says whether the init wait does what it should.
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
	switch long := w.State == waitRuns && now.Sub(*w.Since) > inspect.StuckAfter; { // for where no agent says it
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
