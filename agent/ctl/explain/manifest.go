package explain

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/internal/invalid"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	sigs "sigs.k8s.io/yaml"
)

// object is one of a manifest that has a pod, or a pod's template.
type object struct {
	kind   string
	source string
	pod    *corev1.Pod
}

// manifest is what files have.
type manifest struct {
	objects    []object
	namespaces map[string]map[string]string // annotations of namespaces, by name
	others     []string                     // in which no pod is known, and fields that are not
}

// strict reads objects as the API server would, and tells of fields that it does not know: who has misspelt one is
// answered about another pod than the one meant.
var strict = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// read reads all documents of a file, YAML or JSON; lists may hold lists.
func (m *manifest) read(source string, data []byte) error {
	if err := twice(source, data); err != nil {
		return err
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for document := 1; ; document++ {
		var raw runtime.RawExtension
		switch err := decoder.Decode(&raw); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s: document %d is neither YAML nor JSON: %w", source, document, err)
		}
		if text := bytes.TrimSpace(raw.Raw); len(text) == 0 || string(text) == "null" {
			continue
		}
		if err := m.add(source, raw.Raw); err != nil {
			return fmt.Errorf("%s: document %d: %w", source, document, err)
		}
	}
}

// twice is an error if a document of YAML has a key twice: the decoder would take the last one, and tell nobody. What
// is no YAML at all is told by the decoder, and a merge of keys (<<) is meant to be overridden.
func twice(source string, data []byte) error {
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for document := 1; ; document++ {
		text, err := reader.Read()
		if err != nil {
			return nil //nolint:nilerr // the end, or an error that the decoder has, too
		}
		_, strictly := sigs.YAMLToJSONStrict(text)
		if strictly == nil || bytes.Contains(text, []byte("<<")) {
			continue
		}
		if _, err := sigs.YAMLToJSON(text); err != nil {
			continue
		}
		_, what, _ := strings.Cut(strictly.Error(), "unmarshal errors:")
		return fmt.Errorf("%s: document %d has a key twice: %s; valid: each key once", source, document,
			strings.Join(strings.Fields(what), " "))
	}
}

// add adds an object of JSON.
func (m *manifest) add(source string, data []byte) error {
	decoded, kind, err := strict.Decode(data, nil, nil)
	var unknown error
	switch {
	case runtime.IsStrictDecodingError(err) && decoded != nil:
		unknown = err
		m.addUnknown(source, kind.Kind, decoded, err)
	case runtime.IsNotRegisteredError(err):
		m.others = append(m.others, fmt.Sprintf("%s of %s in %s, which is not known here", kind.Kind, kind.GroupVersion(),
			source))
		return nil
	case err != nil:
		return err
	}
	if meta.IsListType(decoded) {
		return m.addList(source, decoded)
	}
	err = m.addObject(source, decoded)
	if err != nil && unknown != nil { // the field that is missing may be there by another name
		return fmt.Errorf("%w (%w)", err, unknown)
	}
	return err
}

// addUnknown adds the fields of an object with pods that are not known here.
func (m *manifest) addUnknown(source, kind string, decoded runtime.Object, err error) {
	what := kind
	if _, pod := podIn(decoded); pod != nil {
		what += " " + strings.TrimSuffix(cmp.Or(pod.Name, pod.GenerateName), "-")
	} else if !meta.IsListType(decoded) {
		return
	}
	unknown, _ := runtime.AsStrictDecodingError(err)
	for _, err := range unknown.Errors() {
		m.others = append(m.others, fmt.Sprintf("%v of %s in %s", err, what, source))
	}
}

func (m *manifest) addList(source string, list runtime.Object) error {
	items, err := meta.ExtractList(list)
	if err != nil {
		return err
	}
	for i, item := range items {
		if raw, ok := item.(*runtime.Unknown); ok {
			if err := m.add(source, raw.Raw); err != nil {
				return fmt.Errorf("items[%d]: %w", i, err)
			}
			continue
		}
		if err := m.addObject(source, item); err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	return nil
}

func (m *manifest) addObject(source string, decoded runtime.Object) error {
	if namespace, ok := decoded.(*corev1.Namespace); ok {
		m.namespaces[namespace.Name] = namespace.Annotations
		return cluster.CheckNamespace("metadata.name of Namespace", namespace.Name)
	}
	kind, pod := podIn(decoded)
	if pod == nil {
		return nil
	}
	m.objects = append(m.objects, object{kind, source, pod})
	return check(kind, pod)
}

// check looks whether an object has what the API server asks of each, and an answer would be about nothing without.
func check(kind string, pod *corev1.Pod) error {
	name := cmp.Or(pod.Name, pod.GenerateName)
	of := strings.TrimSpace("of " + kind + " " + name)
	switch template := templates[kind]; {
	case name == "":
		return invalid.Text("metadata.name "+of, "", "it has no name", "a name, or metadata.generateName")
	case template != "" && equality.Semantic.DeepEqual(pod.Spec, corev1.PodSpec{}):
		return invalid.JSON(template+" "+of, "{}", "it has no pod", "a template with spec.containers")
	case len(pod.Spec.Containers) == 0:
		return invalid.JSON(strings.TrimPrefix(template+".spec.containers ", ".")+of, "[]", "it has no container",
			"a list of one container or more")
	case pod.Namespace != "":
		if err := cluster.CheckNamespace("metadata.namespace "+of, pod.Namespace); err != nil {
			return err
		}
	}
	if pod.Name == "" {
		return cluster.CheckObject("metadata.generateName of "+kind, strings.TrimSuffix(name, "-"))
	}
	return cluster.CheckObject("metadata.name of "+kind, name)
}

// templates are where each kind that makes pods has their template.
var templates = map[string]string{
	"PodTemplate": "template", "ReplicationController": "spec.template", "Deployment": "spec.template",
	"ReplicaSet": "spec.template", "StatefulSet": "spec.template", "DaemonSet": "spec.template", "Job": "spec.template",
	"CronJob": "spec.jobTemplate.spec.template",
}

// podIn returns the pod that an object is or makes, nil if none.
func podIn(decoded runtime.Object) (kind string, pod *corev1.Pod) {
	switch o := decoded.(type) {
	case *corev1.Pod:
		return "Pod", o
	case *corev1.PodTemplate:
		return "PodTemplate", made(o.ObjectMeta, &o.Template)
	case *corev1.ReplicationController:
		return "ReplicationController", made(o.ObjectMeta, o.Spec.Template)
	case *appsv1.Deployment:
		return "Deployment", made(o.ObjectMeta, &o.Spec.Template)
	case *appsv1.ReplicaSet:
		return "ReplicaSet", made(o.ObjectMeta, &o.Spec.Template)
	case *appsv1.StatefulSet:
		return "StatefulSet", made(o.ObjectMeta, &o.Spec.Template)
	case *appsv1.DaemonSet:
		return "DaemonSet", made(o.ObjectMeta, &o.Spec.Template)
	case *batchv1.Job:
		return "Job", made(o.ObjectMeta, &o.Spec.Template)
	case *batchv1.CronJob:
		return "CronJob", made(o.ObjectMeta, &o.Spec.JobTemplate.Spec.Template)
	}
	return "", nil
}

// made is a pod of a template, by the name of its owner.
func made(owner metav1.ObjectMeta, template *corev1.PodTemplateSpec) *corev1.Pod {
	if template == nil {
		template = &corev1.PodTemplateSpec{} // which is told as none
	}
	pod := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
	pod.Namespace, pod.Name, pod.GenerateName = owner.Namespace, owner.Name, owner.GenerateName
	return pod
}

// named fills in what the API server would: the name, which a generated one begins with, and the namespace.
func named(pod *corev1.Pod, namespace string) {
	if pod.Name == "" {
		pod.Name = strings.TrimSuffix(pod.GenerateName, "-")
	}
	if pod.Namespace == "" {
		pod.Namespace = namespace
	}
}

// sorted returns what was not looked at, each kind once.
func (m *manifest) sorted() []string {
	slices.Sort(m.others)
	return slices.Compact(m.others)
}
