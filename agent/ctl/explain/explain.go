// Package explain says what the plugin does with a pod's traffic and why, by the plugin's own decision.
package explain

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// Verdict is what the plugin does with a pod.
type Verdict string

// Values of Verdict.
const (
	Redirected Verdict = "redirected" // its traffic goes through its sidecar
	Untouched  Verdict = "untouched"  // its network is not changed
	Refused    Verdict = "refused"    // it does not start
)

// Explanation is the explanation of one pod.
type Explanation struct {
	Object    string  `json:"object"` // its kind: Pod, or the kind with its template
	Namespace string  `json:"namespace"`
	Name      string  `json:"name"`
	Source    string  `json:"source,omitempty"` // the file that it was read from
	Verdict   Verdict `json:"verdict"`
	// Reason is that in the plugin's log and record. For a refused pod it is that of the decision without the error, if
	// known.
	Reason  string `json:"reason,omitempty"`
	Meaning string `json:"meaning,omitempty"`
	Error   string `json:"error,omitempty"` // why it is refused
	Next    string `json:"next,omitempty"`  // what to do if something else is intended
	// Assumed are assumptions about what could not be read.
	Assumed   []string   `json:"assumed,omitempty"`
	Questions []Question `json:"questions"`
	Settings  []Setting  `json:"settings,omitempty"` // of a redirected pod
	Warnings  []string   `json:"warnings,omitempty"`
	Live      *Live      `json:"cluster,omitempty"` // of a pod in a cluster

	pod  *corev1.Pod
	spec redirect.Spec
}

// Pod returns the explained pod.
func (e Explanation) Pod() *corev1.Pod { return e.pod }

// Spec returns the settings of a redirected pod.
func (e Explanation) Spec() redirect.Spec { return e.spec }

// Question is a question of the decision.
type Question struct {
	Reason   string  `json:"reason"` // of the verdict, if the answer ends the decision
	Question string  `json:"question"`
	Answer   string  `json:"answer"` // yes, no or invalid
	Ends     bool    `json:"ends,omitempty"`
	From     *Origin `json:"from,omitempty"` // absent if nothing says it
}

// Setting is a setting of a redirected pod.
type Setting struct {
	Name  string `json:"name"` // as in `redirect` of the plugin's entry
	Value any    `json:"value"`
	From  Origin `json:"from"`
}

// Origin is where an answer or a setting comes from.
type Origin struct {
	Kind  string `json:"kind"`         // a kind of package redirect, or default
	Of    string `json:"of,omitempty"` // the container or the namespace
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

// ofDefault is the kind of an origin that is not in the operator's entry.
const ofDefault = "default"

// Operator has the operator's settings for all pods.
type Operator struct {
	policy redirect.Policy
	said   map[string]bool // keys in the entry
}

// OperatorOf reads the plugin's entry. It notes which keys are in it, so that other keys have the origin default.
func OperatorOf(e entry.Entry) (Operator, error) {
	o := Operator{policy: e.Policy, said: map[string]bool{}}
	keys, err := entry.Decode(e.Text())
	if err != nil {
		return o, err
	}
	for key := range keys {
		o.said[key] = true
	}
	var settings map[string]json.RawMessage
	if err := keys.Into("redirect", &settings, "an object of settings"); err != nil {
		return o, err
	}
	for key := range settings {
		o.said["redirect."+key] = true
	}
	return o, nil
}

func (o Operator) origin(from redirect.Origin) Origin {
	kind := string(from.Kind)
	if from.Kind == redirect.OfConfig && !o.said[from.Name] {
		kind = ofDefault
	}
	return Origin{kind, from.Of, from.Name, from.Value}
}

// Of explains a pod. namespace are the annotations of its namespace.
func (o Operator) Of(pod *corev1.Pod, namespace map[string]string) Explanation {
	e := Explanation{Object: "Pod", Namespace: pod.Namespace, Name: pod.Name, Questions: []Question{}, pod: pod}
	if pod.Spec.HostNetwork {
		e.Verdict, e.Reason = Untouched, string(reasonHostNetwork)
		e.Meaning, e.Next = meanings[reasonHostNetwork].is, meanings[reasonHostNetwork].next
		e.Questions = append(e.Questions, Question{string(reasonHostNetwork), "Does it have a network of its own?", no, true,
			&Origin{Kind: string(redirect.OfPod), Name: "hostNetwork", Value: "true"}})
		return e
	}
	facts := podfacts.Of(pod, namespace)
	explained, err := redirect.Explain(facts, o.policy)
	e.ask(o, explained.Answers)
	for _, s := range explained.Settings {
		e.Settings = append(e.Settings, Setting{s.Name, s.Value, o.origin(s.From)})
	}
	e.Reason = string(explained.Reason)
	e.Meaning, e.Next = meanings[explained.Reason].is, meanings[explained.Reason].next
	switch {
	case err != nil:
		e.Verdict, e.Error, e.Next = Refused, err.Error(), "Correct it, and make the pod again."
	case explained.Verdict == redirect.Redirect:
		e.Verdict, e.spec = Redirected, explained.Spec
		e.warn(pod, podfacts.AsRun(pod, namespace), explained.Spec)
	default:
		e.Verdict = Untouched
	}
	return e
}

// Well reports whether the pod can do what it is intended for.
func (e Explanation) Well() bool {
	return e.Verdict != Refused && e.Reason != string(redirect.ReasonNoProxy)
}

// ask stores the questions of the decision.
func (e *Explanation) ask(o Operator, answers []redirect.Answer) {
	known := 0
	for _, a := range answers {
		put := asks[a.Reason]
		if a.Reason == redirect.ReasonIncomplete {
			put = unknowns[known]
			known++
		}
		q := Question{Reason: string(a.Reason), Question: put.text, Ends: a.Verdict != "" || a.Err != nil}
		switch {
		case a.Err != nil:
			q.Answer = unread
		case q.Ends == (put.stops == yes):
			q.Answer = yes
		default:
			q.Answer = no
		}
		if a.From != (redirect.Origin{}) {
			from := o.origin(a.From)
			q.From = &from
		}
		e.Questions = append(e.Questions, q)
	}
}

// warn adds how a redirected pod's traffic could bypass the sidecar.
func (e *Explanation) warn(pod *corev1.Pod, runs redirect.Pod, spec redirect.Spec) {
	if shared := runs.SharesProxyUser(spec); shared != nil {
		e.Warnings = append(e.Warnings, fmt.Sprintf("container %s has %s %d, which is the sidecar's: its traffic can go "+
			"around the sidecar", shared.Container, shared.What, shared.ID))
	}
	if left := runs.LeftOut(spec); left != nil {
		e.Warnings = append(e.Warnings, fmt.Sprintf("container %s runs in group %d, which the settings leave out: its "+
			"traffic goes around the sidecar", left.Container, left.Group))
	}
	if names := podfacts.MayEscalate(pod); len(names) > 0 {
		e.Warnings = append(e.Warnings, fmt.Sprintf("in container %s a setuid or setgid program can go around the "+
			"sidecar: set allowPrivilegeEscalation: false", strings.Join(names, ", ")))
	}
}
