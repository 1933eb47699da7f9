package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/golden"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubetesting "k8s.io/client-go/testing"
)

// left is the namespace of another run.
func left(labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace, UID: "left", Labels: labels,
		Annotations: map[string]string{space.RunKey(): "another", space.BeatKey(): "7"}}}
}

// What a killed run has left is removed. A namespace of a living run or of somebody else is not.
func TestLeftover(t *testing.T) {
	own := space.Labels()
	namespaces := corev1.SchemeGroupVersion.WithResource("namespaces")
	for name, test := range map[string]struct {
		labels  map[string]string
		alive   bool
		options options
		status  int
		gone    bool
		says    string
	}{
		"killed":            {own, false, options{}, outcome.Well, true, "which a run that was killed has left"},
		"alive":             {own, true, options{}, outcome.NotAsked, false, "another run goes on"},
		"foreign":           {nil, false, options{}, outcome.NotAsked, false, "somebody else has made it"},
		"cleanup":           {own, true, options{cleanup: true}, outcome.Well, true, "is removed"},
		"cleanup of theirs": {nil, false, options{cleanup: true}, outcome.NotAsked, false, "somebody else has made it"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if err := f.Tracker().Create(namespaces, left(test.labels), ""); err != nil {
				t.Fatal(err)
			}
			beats := 7
			if test.alive {
				f.PrependReactor("get", "namespaces", func(kubetesting.Action) (bool, runtime.Object, error) {
					object, err := f.Tracker().Get(namespaces, "", Namespace)
					if err != nil {
						return true, nil, err
					}
					n := object.(*corev1.Namespace).DeepCopy()
					beats++
					n.Annotations[space.BeatKey()] = fmt.Sprint(beats)
					return true, n, nil
				})
			}
			status, stdout, stderr, err := f.run(t.Context(), test.options, output.Table)
			if status != test.status || !strings.Contains(stdout+stderr+fmt.Sprint(err), test.says) {
				t.Errorf("status %d, %v:\n%s%s", status, err, stdout, stderr)
			}
			if there := f.there(t); (there == nil) != test.gone {
				t.Errorf("there is %+v", there)
			}
		})
	}
	if status, stdout, _, _ := newFake(t).run(t.Context(), options{cleanup: true}, output.Table); status != outcome.Well ||
		!strings.Contains(stdout, "nothing to remove") {
		t.Errorf("status %d: %s", status, stdout)
	}
}

// The result of --cleanup can be read by a program.
func TestCleanup(t *testing.T) {
	for _, format := range []output.Format{output.JSON, output.YAML} {
		f := newFake(t)
		if err := f.Tracker().Add(left(space.Labels())); err != nil {
			t.Fatal(err)
		}
		status, stdout, stderr, err := f.run(t.Context(), options{cleanup: true}, format)
		if status != outcome.Well || stderr != "" {
			t.Errorf("status %d, %v: %s", status, err, stderr)
		}
		golden.Compare(t, "testdata/cleanup."+string(format), stdout)
	}
}

// During a run, the namespace shows that the run is alive. If somebody removes the namespace, the run ends.
func TestAlive(t *testing.T) {
	f := newFake(t)
	f.change = onB("mesh", func(p *corev1.Pod) {
		pending(p)
		go func() {
			for range 1000 {
				if n := f.there(t); n != nil && n.Annotations[space.BeatKey()] != "0" {
					_ = f.CoreV1().Namespaces().Delete(context.Background(), Namespace, metav1.DeleteOptions{})
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
	})
	status, stdout, _, err := f.run(t.Context(), options{}, output.Table)
	if status != outcome.NotAsked || !strings.Contains(stdout, "somebody has removed namespace") {
		t.Errorf("status %d, %v:\n%s", status, err, stdout)
	}
}

// If kubelets cannot end pods, because the runtime cannot take their networks down, the error names the pods, says what
// a kubelet says, and how to get rid of them. Without the right to list pods it has those of which a kubelet says so.
func TestStays(t *testing.T) {
	const message = `error killing pod: failed to destroy network: failed to find plugin "istio-pod-network" in path`
	const next = "kubectl -n istio-pod-network-verify delete pods --all --force --grace-period=0"
	why := []string{"not within 50ms: ", "still being removed", "The kubelet says of mesh-0: " + message + ".",
		"istio-pod-networkctl status says", next}
	for name, test := range map[string]struct {
		pods bool
		err  error // of the list of pods
		says []string
		not  string
	}{
		"pods": {true, nil, append(why, "pods that stay: mesh-0 on node-b, peer-0 on node-a."), "it needs"},
		"no right": {true, apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New(`User "reader" cannot`)),
			append(why, "could not be read (it needs the verb list on pods): pods is forbidden",
				"; kubelets could not end mesh-0, peer-1."), "peer-0"},
		"no answer": {true, errors.New("connection refused"),
			[]string{"not within 50ms: ", "could not be read: connection refused"}, next},
		"no pod": {false, nil, []string{"kubectl get namespace istio-pod-network-verify -o yaml"}, next},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // otherwise the time may be over before anything is asked
				f := newFake(t)
				going := left(space.Labels())
				going.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
				going.Finalizers = []string{"kubernetes"}
				if err := f.Tracker().Add(going); err != nil {
					t.Fatal(err)
				}
				for pod, node := range map[string]string{"peer-0": "node-a", "mesh-0": "node-b"} {
					p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: pod}}
					if p.Spec.NodeName = node; test.pods {
						if err := f.Tracker().Add(p); err != nil {
							t.Fatal(err)
						}
					}
				}
				mesh := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "mesh-0", UID: "u"}}
				another := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "peer-1", UID: "v"}}
				f.warned(another, "FailedKillPod", "an earlier message")
				f.warned(mesh, "FailedKillPod", message)
				f.warned(mesh, "FailedKillPod", message)
				f.warned(mesh, "Unhealthy", "not ready")
				f.PrependReactor("list", "pods", func(kubetesting.Action) (bool, runtime.Object, error) {
					return test.err != nil, nil, test.err
				})
				status, stdout, _, err := f.run(t.Context(), options{cleanup: true, timeout: short}, output.Table)
				if status != outcome.NotAsked || stdout != "" || strings.Contains(fmt.Sprint(err), test.not) {
					t.Errorf("status %d, %v: %s", status, err, stdout)
				}
				for _, says := range test.says {
					if !strings.Contains(fmt.Sprint(err), says) {
						t.Errorf("no %q: %v", says, err)
					}
				}
			})
		})
	}
}
