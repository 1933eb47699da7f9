package temporary

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/internal/excerpt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// unkilled is the reason of the kubelet's Event if it cannot end a pod (pkg/kubelet/events/event.go).
const unkilled = "FailedKillPod"

// Limits of what is said about pods that stay: the time for both requests, and bytes of a kubelet's message.
const (
	staysTimeout = 10 * time.Second
	longestText  = 600
)

// stays returns an error that says why the namespace is not gone, and what to do. Usually it has pods that a kubelet
// cannot end: the runtime has to take their networks down first, and DEL fails on a node that has lost the plugin.
func (s *Space) stays(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), staysTimeout)
	defer cancel()
	what := "namespace " + s.Name + " is still being removed"
	pods, err := s.core.Pods(s.Name).List(ctx, metav1.ListOptions{})
	says, unkilled := s.unkilled(ctx)
	switch {
	case cluster.LacksRight(err): // the chart's role has list on events alone: it cannot be limited to this namespace
		what += fmt.Sprintf("; which pods stay could not be read (it needs the verb list on pods): %v", err)
		if len(unkilled) > 0 {
			what += "; kubelets could not end " + excerpt.Head(strings.Join(unkilled, ", "), longestNames)
		}
	case err != nil:
		return fmt.Errorf("%s; which pods stay could not be read: %w", what, err)
	case len(pods.Items) == 0:
		return fmt.Errorf("%s: kubectl get namespace %s -o yaml says what is left in it", what, s.Name)
	default:
		var names []string
		for _, pod := range pods.Items {
			names = append(names, pod.Name+" on "+pod.Spec.NodeName)
		}
		slices.Sort(names)
		what += "; pods that stay: " + excerpt.Head(strings.Join(names, ", "), longestNames)
	}
	return fmt.Errorf("%s.%s A pod stays as long as the runtime cannot take its network down, as on a node that has lost "+
		"the plugin: %s status says what a node lacks. Once it has the plugin again, its pods go. For a node that does not "+
		"come back: kubectl -n %s delete pods --all --force --grace-period=0", what, says, s.tool, s.Name)
}

// unkilled returns a sentence with the last Event of a kubelet that cannot end a pod, "" if there is none, and the
// names of all pods that have one.
func (s *Space) unkilled(ctx context.Context) (says string, pods []string) {
	list, err := s.core.Events(s.Name).List(ctx, metav1.ListOptions{FieldSelector: "reason=" + unkilled})
	if err != nil {
		return "", nil // without it, the pods are named if they can be listed
	}
	var last *corev1.Event
	for i := range list.Items {
		e := &list.Items[i]
		if e.Reason != unkilled {
			continue
		}
		pods = append(pods, e.InvolvedObject.Name)
		if last == nil || last.LastTimestamp.Before(&e.LastTimestamp) {
			last = e
		}
	}
	if last == nil {
		return "", nil
	}
	slices.Sort(pods)
	return fmt.Sprintf(" The kubelet says of %s: %s.", last.InvolvedObject.Name,
		strings.TrimSuffix(excerpt.Head(last.Message, longestText), ".")), slices.Compact(pods)
}
