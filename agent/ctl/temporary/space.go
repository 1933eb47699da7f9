package temporary

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Kind is the temporary namespace of a command. Its name is fixed, so that RBAC can name it and only one run is
// possible at a time.
type Kind struct {
	Name    string // its name, and the value of its label
	Level   string // of Pod Security
	Key     string // part of its annotations' names
	Cleanup string // the command that removes it
	// Inject is the label, with its value, by which Istio's webhooks select the namespace. Without one the namespace opts
	// out of injection: its pods bring their own stand-in of the sidecar.
	Inject [2]string
}

// InjectionLabel is the label with which a namespace opts in to or out of Istio's default injection.
const InjectionLabel = "istio-injection"

// podSecurity is the label for the level of Pod Security.
const podSecurity = "pod-security.kubernetes.io/enforce"

// LabelKey is the label that distinguishes the namespace and its objects from others with the same name.
const LabelKey = "app.kubernetes.io/name"

// Labels returns the labels of objects in the namespace.
func (k Kind) Labels() map[string]string { return map[string]string{LabelKey: k.Name} }

// RunKey returns the name of the annotation that identifies the run.
func (k Kind) RunKey() string { return annotation.ControllerPrefix + k.Key + "-run" }

// BeatKey returns the name of the annotation that changes as long as the run is alive.
func (k Kind) BeatKey() string { return annotation.ControllerPrefix + k.Key + "-beat" }

// missedBeats is a number of beats that a living run never misses.
const missedBeats = 3

// releaseTimeout limits the wait until the namespace is gone.
const releaseTimeout = 2 * time.Minute

// Space is the temporary namespace of one run.
type Space struct {
	Kind
	core typedcore.CoreV1Interface
	pace Pace
	tool string // the user's name for this program
	run  string
	made bool // it was created, or that is unknown because there was no answer
}

// NewSpace returns a namespace that is not created yet.
func NewSpace(k Kind, core typedcore.CoreV1Interface, p Pace, tool string) *Space {
	return &Space{Kind: k, core: core, pace: p, tool: tool, run: rand.Text()}
}

// claim creates the namespace. It first removes one that a killed run has left.
func (s *Space) claim(ctx context.Context, say func(string)) error {
	labels := map[string]string{LabelKey: s.Name, podSecurity: s.Level, InjectionLabel: "disabled"}
	if s.Inject[0] != "" {
		delete(labels, InjectionLabel)
		labels[s.Inject[0]] = s.Inject[1]
	}
	for {
		_, err := s.core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: s.Name, Labels: labels, Annotations: map[string]string{s.RunKey(): s.run, s.BeatKey(): "0"},
		}}, metav1.CreateOptions{})
		var refused apierrors.APIStatus
		s.made = !errors.As(err, &refused)
		switch {
		case err == nil:
			return nil
		case !apierrors.IsAlreadyExists(err):
			return fmt.Errorf("making namespace %s%s: %w", s.Name, cluster.Needs("the verb create on namespaces", err), err)
		}
		if err := s.makeWay(ctx, say); err != nil {
			return err
		}
	}
}

// makeWay removes the namespace of an earlier run. It returns an error if that run is alive.
func (s *Space) makeWay(ctx context.Context, say func(string)) error {
	there, err := s.ours(ctx)
	if there == nil || err != nil {
		return err
	}
	if there.DeletionTimestamp == nil {
		say("namespace " + s.Name + " is there: looking whether its run is alive")
		if !cluster.Pause(ctx, missedBeats*s.pace.Beat) {
			return context.Cause(ctx)
		}
		now, err := s.ours(ctx)
		switch {
		case now == nil || err != nil:
			return err
		case now.UID != there.UID || now.Annotations[s.BeatKey()] != there.Annotations[s.BeatKey()]:
			return fmt.Errorf("another run goes on in namespace %s; wait for its end, or end it: %s %s",
				s.Name, s.tool, s.Cleanup)
		}
		say("removing namespace " + s.Name + ", which a run that was killed has left")
	}
	return s.remove(ctx, there)
}

// ours returns the namespace, nil if it does not exist. One that somebody else has created is an error.
func (s *Space) ours(ctx context.Context) (*corev1.Namespace, error) {
	there, err := s.core.Namespaces().Get(ctx, s.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading namespace %s%s: %w", s.Name, cluster.Needs("the verb get on it", err), err)
	case there.Labels[LabelKey] != s.Name:
		return nil, fmt.Errorf("namespace %s is there without the label %s=%s: somebody else has made it, and it is left "+
			"alone", s.Name, LabelKey, s.Name)
	}
	return there, nil
}

// remove deletes the namespace and waits until it is gone.
func (s *Space) remove(ctx context.Context, there *corev1.Namespace) error {
	if there.DeletionTimestamp == nil {
		err := s.core.Namespaces().Delete(ctx, s.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &there.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting it%s: %w", cluster.Needs("the verb delete on it", err), err)
		}
	}
	for {
		now, err := s.core.Namespaces().Get(ctx, s.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && now.UID != there.UID {
			return nil
		}
		if !cluster.Pause(ctx, s.pace.Poll) {
			return fmt.Errorf("%w: %w", context.Cause(ctx), s.stays(ctx))
		}
	}
}

// release removes the namespace if it belongs to this run.
func (s *Space) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, releaseTimeout, Late(releaseTimeout))
	defer cancel()
	there, err := s.ours(ctx)
	if err != nil || there == nil || there.Annotations[s.RunKey()] != s.run {
		return err
	}
	return s.remove(ctx, there)
}

// live updates the beat until ctx ends. It calls lost if the namespace is gone.
func (s *Space) live(ctx context.Context, lost func(error)) {
	for i := 1; cluster.Pause(ctx, s.pace.Beat); i++ {
		patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: "%d"}}}`, s.BeatKey(), i)
		_, err := s.core.Namespaces().Patch(ctx, s.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if apierrors.IsNotFound(err) {
			lost(fmt.Errorf("somebody has removed namespace %s", s.Name))
			return
		}
	}
}

// In creates the namespace within that time, calls do, and removes the namespace. The context of do ends if somebody
// else removes the namespace.
func (s *Space) In(ctx context.Context, within time.Duration, p *Progress, do func(context.Context) error) error {
	defer func() {
		defer p.End()
		if !s.made {
			return
		}
		p.Say("removing namespace " + s.Name)
		if left := s.release(context.WithoutCancel(ctx)); left != nil {
			p.Warn(fmt.Sprintf("namespace %s is left: %v. To remove it later: %s %s", s.Name, left, s.tool, s.Cleanup))
		}
	}()
	claiming, cancel := context.WithTimeoutCause(ctx, within, Late(within))
	defer cancel()
	if err := s.claim(claiming, p.Say); err != nil {
		return err
	}
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	go s.live(ctx, lost)
	return do(ctx)
}

// Each calls do for each node, parallel at the same time.
func Each(nodes []string, parallel int, do func(i int, node string)) {
	cluster.AtOnce(len(nodes), parallel, func(i int) { do(i, nodes[i]) })
}

// Cleanup is the result of a cleanup.
type Cleanup struct {
	output.Head `json:",inline"`
	// Removed is what earlier runs had left; empty if there was nothing.
	Removed []Removed `json:"removed"`
}

// Removed is an object that was removed with everything in it.
type Removed struct {
	Object string `json:"object"` // its kind
	Name   string `json:"name"`
}

// Clean removes the namespace within that time, whichever run it belongs to, and writes the result.
func (s *Space) Clean(ctx context.Context, within time.Duration, w output.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, Late(within))
	defer cancel()
	there, err := s.ours(ctx)
	if there != nil && err == nil {
		err = s.remove(ctx, there)
	}
	if err != nil {
		return outcome.Unasked(err)
	}
	done := Cleanup{Head: output.HeadOf("Cleanup"), Removed: []Removed{}}
	text := "There was nothing to remove: there is no namespace " + s.Name + "."
	if there != nil {
		done.Removed = append(done.Removed, Removed{Object: "Namespace", Name: s.Name})
		text = "The namespace " + s.Name + " and all that was in it is removed."
	}
	return outcome.Unasked(w.Object(done, func(t *output.Text) { t.Line(output.Plain, "%s", text) }))
}

// Furnish creates what pods in the namespace need: a service account, which the API server would only create a moment
// later, and copies of pull secrets from another namespace. It returns which are missing and why.
func (s *Space) Furnish(
	ctx context.Context, core typedcore.CoreV1Interface, account, from string, pulls []corev1.LocalObjectReference,
) (missing []string, err error) {
	_, err = core.ServiceAccounts(s.Name).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}},
		metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("making a service account%s: %w",
			cluster.Needs("the verb create on serviceaccounts", err), err)
	}
	for _, reference := range pulls {
		secret, err := core.Secrets(from).Get(ctx, reference.Name, metav1.GetOptions{})
		if err == nil {
			_, err = core.Secrets(s.Name).Create(ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: secret.Name}, Type: secret.Type, Data: secret.Data,
			}, metav1.CreateOptions{})
		}
		if err != nil {
			missing = append(missing, fmt.Sprintf("images that need the pull secret %s, which could not be copied from "+
				"namespace %s%s: %v", reference.Name, from,
				cluster.Needs("the verbs get on secrets there, and create on secrets", err), err))
		}
	}
	return missing, nil
}
