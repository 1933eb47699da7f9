package verify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Namespace is the temporary one. It has one name, so that rights can name it, and that there is one run at a time.
const Namespace = "istio-pod-network-verify"

// What tells the namespace from one that somebody else has made by that name, one run from another, and whether a run
// is alive: while it is, the last changes.
const (
	labelKey   = "app.kubernetes.io/name"
	labelValue = "istio-pod-network-verify"
	runKey     = annotation.ControllerPrefix + "verify-run"
	beatKey    = annotation.ControllerPrefix + "verify-beat"
)

// missedBeats is how many a run that is alive never misses.
const missedBeats = 3

// releaseTimeout bounds the wait until the namespace is gone.
const releaseTimeout = 2 * time.Minute

// space is the temporary namespace of one run.
type space struct {
	namespaces typedcore.NamespaceInterface
	pace       pace
	tool       string
	run        string
	made       bool // or nobody knows: the answer did not come
}

func newSpace(namespaces typedcore.NamespaceInterface, p pace, tool string) *space {
	return &space{namespaces: namespaces, pace: p, tool: tool, run: rand.Text()}
}

// claim makes the namespace. One that a killed run has left is removed before.
func (s *space) claim(ctx context.Context, say func(string)) error {
	for {
		_, err := s.namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: Namespace,
			Labels: map[string]string{
				labelKey: labelValue, "pod-security.kubernetes.io/enforce": "restricted",
				"istio-injection": "disabled", // its pods bring a stand-in of the sidecar
			},
			Annotations: map[string]string{runKey: s.run, beatKey: "0"},
		}}, metav1.CreateOptions{})
		var refused apierrors.APIStatus
		s.made = !errors.As(err, &refused)
		switch {
		case err == nil:
			return nil
		case !apierrors.IsAlreadyExists(err):
			return fmt.Errorf("making namespace %s, which needs the verb create on namespaces: %w", Namespace, err)
		}
		if err := s.makeWay(ctx, say); err != nil {
			return err
		}
	}
}

// makeWay returns when the namespace of before is gone.
func (s *space) makeWay(ctx context.Context, say func(string)) error {
	there, err := s.ours(ctx)
	if there == nil || err != nil {
		return err
	}
	if there.DeletionTimestamp == nil {
		say("namespace " + Namespace + " is there: looking whether its run is alive")
		if !pause(ctx, missedBeats*s.pace.beat) {
			return context.Cause(ctx)
		}
		now, err := s.ours(ctx)
		switch {
		case now == nil || err != nil:
			return err
		case now.UID != there.UID || now.Annotations[beatKey] != there.Annotations[beatKey]:
			return fmt.Errorf("another run goes on in namespace %s; wait for its end, or end it: %s verify --cleanup",
				Namespace, s.tool)
		}
		say("removing namespace " + Namespace + ", which a run that was killed has left")
	}
	return s.remove(ctx, there)
}

// ours returns the namespace if it is there, nil otherwise. One that somebody else has made is an error.
func (s *space) ours(ctx context.Context) (*corev1.Namespace, error) {
	there, err := s.namespaces.Get(ctx, Namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading namespace %s, which needs the verb get on it: %w", Namespace, err)
	case there.Labels[labelKey] != labelValue:
		return nil, fmt.Errorf("namespace %s is there without the label %s=%s: somebody else has made it, and it is left "+
			"alone", Namespace, labelKey, labelValue)
	}
	return there, nil
}

// remove deletes the namespace and returns when it is gone.
func (s *space) remove(ctx context.Context, there *corev1.Namespace) error {
	if there.DeletionTimestamp == nil {
		err := s.namespaces.Delete(ctx, Namespace, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &there.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting it, which needs the verb delete on it: %w", err)
		}
	}
	for {
		now, err := s.namespaces.Get(ctx, Namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && now.UID != there.UID {
			return nil
		}
		if !pause(ctx, s.pace.poll) {
			return errors.Join(context.Cause(ctx), fmt.Errorf("namespace %s is still being removed", Namespace))
		}
	}
}

// release removes the namespace if it is this run's.
func (s *space) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	there, err := s.ours(ctx)
	if err != nil || there == nil || there.Annotations[runKey] != s.run {
		return err
	}
	return s.remove(ctx, there)
}

// clean removes the namespace, whosever run it is of, and reports whether there was one.
func (s *space) clean(ctx context.Context) (was bool, err error) {
	there, err := s.ours(ctx)
	if there == nil || err != nil {
		return false, err
	}
	return true, s.remove(ctx, there)
}

// live has the namespace say that its run is alive, until ctx ends. That it is gone is told to lost.
func (s *space) live(ctx context.Context, lost func(error)) {
	for i := 1; pause(ctx, s.pace.beat); i++ {
		patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: "%d"}}}`, beatKey, i)
		_, err := s.namespaces.Patch(ctx, Namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if apierrors.IsNotFound(err) {
			lost(fmt.Errorf("somebody has removed namespace %s", Namespace))
			return
		}
	}
}
