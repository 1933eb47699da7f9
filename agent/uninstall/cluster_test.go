package uninstall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// nodes is the progress of a cluster's nodes.
type nodes struct{ desired, updated, ready int }

// fleet is an API server with one DaemonSet. Each read returns the next progress; the last one stays.
type fleet struct {
	states  []nodes
	pods    []corev1.Pod
	reads   int
	patches []string
	broken  func(reads int) error
	bare    bool // the pods have no container
}

func (f *fleet) DaemonSet(_ context.Context, namespace, name string) (d kube.DaemonSet, err error) {
	if namespace != "ns" || name != "ds" {
		return d, apierrors.NewNotFound(schema.GroupResource{Resource: "daemonsets"}, name)
	}
	f.reads++
	if f.broken != nil {
		if err := f.broken(f.reads); err != nil {
			return d, err
		}
	}
	s := f.states[min(f.reads, len(f.states))-1]
	d.Metadata.Generation, d.Status.ObservedGeneration = 1+int64(len(f.patches)), 1+int64(len(f.patches))
	d.Status.DesiredNumberScheduled, d.Status.UpdatedNumberScheduled, d.Status.NumberReady = s.desired, s.updated, s.ready
	if !f.bare {
		d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "agent"}}
	}
	d.Spec.Selector.MatchLabels = map[string]string{"app": "agent"}
	return d, nil
}

func (f *fleet) PatchDaemonSet(_ context.Context, _, _ string, patch []byte) error {
	f.patches = append(f.patches, string(patch))
	return nil
}

func (f *fleet) PodsWith(_ context.Context, namespace string, labels map[string]string) ([]corev1.Pod, error) {
	if namespace != "ns" || labels["app"] != "agent" {
		return nil, errors.New("other pods")
	}
	return f.pods, nil
}

// podOn returns a pod of the DaemonSet.
func podOn(node string, change func(*corev1.Pod)) corev1.Pod {
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "agent-" + node},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{
			{Name: "agent", Env: []corev1.EnvVar{{Name: EnvUninstall, Value: "true"}}},
		}},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	change(&pod)
	return pod
}

func TestCluster(t *testing.T) {
	done := func(*corev1.Pod) {}
	agent := func(p *corev1.Pod) { p.Spec.Containers[0].Env = nil }
	unready := func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
	unpulled := func(p *corev1.Pod) {
		unready(p)
		p.Status.ContainerStatuses = []corev1.ContainerStatus{
			{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}},
		}
	}
	var many []corev1.Pod
	for i := range 13 {
		many = append(many, podOn(fmt.Sprintf("n%02d", i), agent))
	}
	for name, c := range map[string]struct {
		fleet     fleet
		daemonset string
		patched   bool
		err       string
		log       []string // words in the log
	}{
		"done at once": {fleet{states: []nodes{{3, 3, 3}}}, "ds", true, "",
			[]string{"out of all 3 nodes", "Event PluginStays"}},
		"done later": {
			fleet{states: []nodes{{3, 0, 3}, {3, 1, 2}, {3, 3, 2}, {3, 3, 3}},
				pods: []corev1.Pod{podOn("b", agent), podOn("a", unready), podOn("c", done)}}, "ds",
			true, "", []string{"1 of 3 nodes are done; not yet: a (pod agent-a: not ready), b (pod agent-b: still the agent)",
				"out of all 3 nodes"},
		},
		"the API server is away for a while": {
			fleet{states: []nodes{{3, 3, 3}}, broken: func(reads int) error {
				return map[int]error{2: errors.New("connection refused"), 3: errors.New("connection refused")}[reads]
			}}, "ds", true, "", []string{"connection refused", "out of all 3 nodes"},
		},
		"no nodes":     {fleet{states: []nodes{{}}}, "ds", true, "", []string{"out of all 0 nodes"}},
		"no DaemonSet": {fleet{}, "other", false, "", []string{"there is no DaemonSet ns/other"}},
		"no container": {fleet{states: []nodes{{3, 3, 3}}, bare: true}, "ds", false,
			"DaemonSet ns/ds: its pods have no container", nil},
		"forbidden": {
			fleet{broken: func(int) error { return errors.New("forbidden") }}, "ds", false, "DaemonSet ns/ds: forbidden", nil,
		},
		"not in time": {
			fleet{states: []nodes{{2, 1, 1}}, pods: []corev1.Pod{podOn("a", done), podOn("b", unpulled)}}, "ds", true,
			"not done within 1m0s: 1 of 2 nodes are done; not yet: b (pod agent-b: ImagePullBackOff)", nil,
		},
		"many are not in time": {
			fleet{states: []nodes{{13, 0, 13}}, pods: many}, "ds", true, "n09 (pod agent-n09: still the agent), and 3 more", nil,
		},
		"away in the end": {
			fleet{states: []nodes{{2, 1, 1}}, broken: func(reads int) error {
				return map[bool]error{true: errors.New("connection refused")}[reads > 1]
			}}, "ds", true, "not done within 1m0s: connection refused", nil,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			log := logrus.New()
			log.SetOutput(&out)
			err := NewCluster("ns", c.daemonset, time.Minute, &c.fleet, log).Run(t.Context())
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", name, err, c.err)
			}
			for _, words := range c.log {
				if !strings.Contains(out.String(), words) {
					t.Errorf("%s: the log says %q, want %q", name, out.String(), words)
				}
			}
			if len(c.fleet.patches) != map[bool]int{true: 1}[c.patched] {
				t.Errorf("%s: %d changes of the DaemonSet", name, len(c.fleet.patches))
			}
		})
	}
}

// All agents are replaced at once by ones that uninstall: in the DaemonSet's own container, by the flag's environment
// variable.
func TestPatch(t *testing.T) {
	f := &fleet{states: []nodes{{}}}
	log := logrus.New()
	log.SetOutput(&bytes.Buffer{})
	if err := NewCluster("ns", "ds", time.Minute, f, log).Run(t.Context()); err != nil || len(f.patches) != 1 {
		t.Fatal(err, f.patches)
	}
	var patch struct {
		Spec struct {
			UpdateStrategy struct {
				RollingUpdate struct {
					MaxSurge       int
					MaxUnavailable string
				}
			}
			Template corev1.PodTemplateSpec
		}
	}
	if err := json.Unmarshal([]byte(f.patches[0]), &patch); err != nil {
		t.Fatal(err)
	}
	update, containers := patch.Spec.UpdateStrategy.RollingUpdate, patch.Spec.Template.Spec.Containers
	if update.MaxSurge != 0 || update.MaxUnavailable != "100%" {
		t.Errorf("%+v", update)
	}
	if len(containers) != 1 || containers[0].Name != "agent" ||
		!slices.Equal(containers[0].Env, []corev1.EnvVar{{Name: "AGENT_UNINSTALL", Value: "true"}}) {
		t.Errorf("%+v", containers)
	}
}
