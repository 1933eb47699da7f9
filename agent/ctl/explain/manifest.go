package explain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

// object is an object of a manifest with a pod or a pod's template.
type object struct {
	kind   string
	source string
	pod    *corev1.Pod
}

// manifest is the content of files.
type manifest struct {
	objects    []object
	namespaces map[string]map[string]string // annotations of namespaces, by name
	others     []string                     // objects without a known pod, and unknown fields
}

// strict decodes objects as the API server does, and reports unknown fields: with a misspelt field the answer would be
// about another pod than the intended one.
var strict = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// read reads all documents of a file, YAML or JSON. Lists may have lists.
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

// add adds an object from JSON.
func (m *manifest) add(source string, data []byte) error {
	if err := json.Unmarshal(data, &metav1.TypeMeta{}); err != nil {
		return inWords(err)
	}
	decoded, kind, err := strict.Decode(data, nil, nil)
	var unknown error
	switch {
	case runtime.IsStrictDecodingError(err) && decoded != nil:
		unknown = err
		m.addUnknown(source, kind.Kind, decoded, err)
	case runtime.IsNotRegisteredError(err):
		m.addOther(source, *kind, nameIn(data))
		return nil
	case err != nil:
		return inWords(err)
	}
	if meta.IsListType(decoded) {
		return m.addList(source, decoded)
	}
	err = m.addObject(source, decoded)
	if err != nil && unknown != nil { // the missing field may have a misspelt name
		return fmt.Errorf("%w (%w)", err, unknown)
	}
	return err
}

// addUnknown adds the unknown fields of an object with pods.
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

// addOld adds an object that makes pods, in an API version that is not supported here.
func (m *manifest) addOld(source string, decoded runtime.Object) {
	kinds, _, err := scheme.Scheme.ObjectKinds(decoded)
	named, isNamed := decoded.(metav1.Object)
	if err == nil && len(kinds) > 0 && isNamed && versions[kinds[0].Kind] != "" {
		m.addOther(source, kinds[0], cmp.Or(named.GetName(), named.GetGenerateName()))
	}
}

// addOther adds an object of an unknown kind or API version.
func (m *manifest) addOther(source string, kind schema.GroupVersionKind, name string) {
	what, version := "which is not known here", versions[kind.Kind]
	if version != "" && slices.Contains(groups, kind.Group) {
		kind.Kind = strings.TrimSpace(kind.Kind + " " + name)
		what = "whose API version is not known here; valid: " + version
	}
	m.others = append(m.others, fmt.Sprintf("%s of %s in %s, %s", kind.Kind, kind.GroupVersion(), source, what))
}

// nameIn returns the name of a JSON object, "" if it has none.
func nameIn(data []byte) string {
	var object metav1.PartialObjectMetadata
	_ = json.Unmarshal(data, &object) // without a name it is still reported
	return cmp.Or(object.Name, object.GenerateName)
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
		m.addOld(source, decoded)
		return nil
	}
	m.objects = append(m.objects, object{kind, source, pod})
	return check(kind, pod)
}

// templates are the paths of the pod template in each kind that makes pods.
var templates = map[string]string{
	"PodTemplate": "template", "ReplicationController": "spec.template", "Deployment": "spec.template",
	"ReplicaSet": "spec.template", "StatefulSet": "spec.template", "DaemonSet": "spec.template", "Job": "spec.template",
	"CronJob": "spec.jobTemplate.spec.template",
}

// versions are the API versions of the kinds with pods.
var versions = map[string]string{
	"Pod": "v1", "PodTemplate": "v1", "ReplicationController": "v1", "Deployment": "apps/v1", "ReplicaSet": "apps/v1",
	"StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1", "CronJob": "batch/v1",
}

// groups are the API groups of Kubernetes that have, or had, these kinds. The same kind in another group is another
// kind.
var groups = []string{"", "apps", "batch", "extensions"}

// podIn returns the pod that an object is or makes, nil if there is none.
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

// made returns the pod of a template, with the name of its owner.
func made(owner metav1.ObjectMeta, template *corev1.PodTemplateSpec) *corev1.Pod {
	if template == nil {
		template = &corev1.PodTemplateSpec{} // it is then reported as missing
	}
	pod := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
	pod.Namespace, pod.Name, pod.GenerateName = owner.Namespace, owner.Name, owner.GenerateName
	return pod
}

// named fills in what the API server would: the name, from a generated one its beginning, and the namespace.
func named(pod *corev1.Pod, namespace string) {
	if pod.Name == "" {
		pod.Name = strings.TrimSuffix(pod.GenerateName, "-")
	}
	if pod.Namespace == "" {
		pod.Namespace = namespace
	}
}

// sorted returns what was not looked at, sorted and without duplicates.
func (m *manifest) sorted() []string {
	slices.Sort(m.others)
	return slices.Compact(m.others)
}
