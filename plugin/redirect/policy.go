package redirect

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"

	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/annotation"
)

// Selection says which pods are considered for the mesh.
type Selection string

// The selections.
const (
	SelectInjected  Selection = "injected"  // pods with Istio's status annotation, or opted in by their own annotation
	SelectAnnotated Selection = "annotated" // as in 2018: pods that opted in, by themselves or by their namespace
)

// ParseSelection parses a selection.
func ParseSelection(text string) (Selection, error) {
	switch s := Selection(text); s {
	case SelectInjected, SelectAnnotated:
		return s, nil
	}
	return "", invalid.Text("selection", text, "unknown selection", validSelection)
}

// Globs is a list of patterns for namespace names, with the syntax of path.Match.
type Globs []string

// ParseGlobs validates every pattern. An error names the setting key.
func ParseGlobs(key string, patterns []string) (Globs, error) {
	for i, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return nil, invalid.Text(fmt.Sprintf("%s[%d]", key, i), pattern, "not a pattern", validGlob)
		}
	}
	return patterns, nil
}

// Match reports whether any pattern matches the name.
func (g Globs) Match(name string) bool {
	for _, pattern := range g {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// Policy is the operator's configuration for all pods of a node.
type Policy struct {
	Selection         Selection
	ExcludeNamespaces Globs
	SharedProxyUser   SharedProxyUser
	Redirect          Spec // the settings, before those of the pod itself
	// Agent says that there is an agent to ask for more facts. Without an agent a decision uses the annotations alone.
	// If those are unknown too, the verdict is Ask all the same.
	Agent bool
}

// ReadsNamespaces reports whether a decision may depend on the annotations of a pod's namespace.
func (p Policy) ReadsNamespaces() bool { return p.Selection != SelectInjected }

// DefaultPolicy returns the policy of an empty configuration.
func DefaultPolicy() Policy {
	return Policy{Selection: SelectInjected, ExcludeNamespaces: Globs{"kube-system"}, SharedProxyUser: SharedWarn,
		Redirect: DefaultSpec()}
}

// ParsePolicy parses `selection`, `excludeNamespaces`, `sharedProxyUser` and `redirect` from the keys of a CNI
// configuration. A key that is absent or null has its default. It does not set Agent. The error names the key, and
// IsInvalid holds for it.
func ParsePolicy(config map[string]json.RawMessage) (Policy, error) {
	policy := DefaultPolicy()
	selection, namespaces, shared := string(policy.Selection), []string(policy.ExcludeNamespaces),
		string(policy.SharedProxyUser)
	if err := ReadKey(config, "selection", &selection, "not a JSON string", validSelection); err != nil {
		return policy, err
	}
	if err := ReadKey(config, "excludeNamespaces", &namespaces, "not a list of JSON strings",
		"a list of namespace names or patterns"); err != nil {
		return policy, err
	}
	if err := ReadKey(config, "sharedProxyUser", &shared, "not a JSON string", validShared); err != nil {
		return policy, err
	}
	var err error
	if policy.Selection, err = ParseSelection(selection); err != nil {
		return policy, err
	}
	if policy.ExcludeNamespaces, err = ParseGlobs("excludeNamespaces", namespaces); err != nil {
		return policy, err
	}
	if policy.SharedProxyUser, err = ParseSharedProxyUser(shared); err != nil {
		return policy, err
	}
	if policy.Redirect, err = ParseSpec(config["redirect"]); err == nil {
		err = policy.Redirect.checkFamilies()
	}
	return policy, err
}

// ReadKey decodes the value of one key of the plugin's entry into target. If the key is absent or null, target stays as
// it is. The error is one of package invalid.
func ReadKey(config map[string]json.RawMessage, key string, target any, problem, valid string) error {
	raw, present := config[key]
	if !present || string(raw) == "null" || json.Unmarshal(raw, target) == nil {
		return nil
	}
	return invalid.JSON(key, string(raw), problem, valid)
}

const (
	validSelection = "injected or annotated"
	validGlob      = "a namespace name, in which * stands for any text, ? for one character, [a-z] for a class"
)

// answer is the value of an opt-in annotation.
type answer int

const (
	noAnswer answer = iota
	yes
	no
)

// ownAnswer reads the pod's own opt-in. An invalid value is an error, not a "no": somebody meant this pod.
func (p *Pod) ownAnswer() (answer, error) { return readAnswer("annotation", p.Annotations) }

// namespaceAnswer reads the opt-in of the pod's namespace.
func (p *Pod) namespaceAnswer() (answer, error) {
	return readAnswer("annotation of namespace "+p.Namespace, p.NamespaceAnnotations)
}

// namespaceSays reports whether the selection uses the namespace's opt-in and it is this answer. With the selection
// injected it is never used: nobody can move a pod into or out of the mesh by editing its namespace.
func (p *Policy) namespaceSays(pod *Pod, this answer) bool {
	says, err := pod.namespaceAnswer()
	return p.Selection == SelectAnnotated && err == nil && says == this
}

func readAnswer(where string, annotations map[string]string) (answer, error) {
	text, present := annotations[annotation.Initialize]
	if !present {
		return noAnswer, nil
	}
	value, err := strconv.ParseBool(text)
	switch {
	case err != nil:
		return noAnswer, invalid.Text(where+" "+annotation.Initialize, text, "not a boolean", validBool)
	case value:
		return yes, nil
	}
	return no, nil
}

// injectDisabled reads sidecar.istio.io/inject as Istio's CNI plugin does: the label takes precedence over the
// annotation, and a value that is not a boolean is ignored. If the labels are unknown, the annotation counts only for a
// pod without a status annotation: with one, a label may have overridden it.
func (p *Pod) injectDisabled() bool {
	if label, present := p.Labels[annotation.SidecarInject]; present {
		return isFalse(label)
	}
	if !p.Complete && p.injected() {
		return false
	}
	return isFalse(p.Annotations[annotation.SidecarInject])
}

func isFalse(text string) bool {
	value, err := strconv.ParseBool(text)
	return err == nil && !value
}

// injected reports whether Istio's injector has added a sidecar to the pod.
func (p *Pod) injected() bool {
	_, present := p.Annotations[annotation.SidecarStatus]
	return present
}
