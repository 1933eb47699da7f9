package schemas

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/yannh/kubeconform/pkg/resource"
	"github.com/yannh/kubeconform/pkg/validator"
	"sigs.k8s.io/yaml"
)

// notOfKubernetes are kinds in the chart that are not in Kubernetes' own API. Their fields are not checked here.
var notOfKubernetes = []string{
	"k8s.cni.cncf.io/v1/NetworkAttachmentDefinition", "monitoring.coreos.com/v1/PodMonitor",
	"monitoring.coreos.com/v1/PrometheusRule", "security.openshift.io/v1/SecurityContextConstraints",
}

// configurations are sets of values that together render every object of every template, including those for older
// releases of Kubernetes. An item that begins with -- is a flag of Helm.
var configurations = map[string][]string{
	"default":               nil,
	"OpenShift with Multus": {"kubernetesDistribution=OpenShift", "hooks=true"},
	"OpenShift's own chain": {"kubernetesDistribution=OpenShift", "openshift.mode=auxChain",
		"openshift.auxFailOpen=true"},
	"GKE, which has a quota": {"kubernetesDistribution=GKE"},
	"pods are deleted":       {"kubernetesDistribution=K3d", "repair=delete", "hooks=true"},
	"uninstalled":            {"uninstall=true"},
	"marks are warned of":    {"--kube-version=1.35.0"},
	"no policies":            {"admissionPolicy.enabled=false", "repair=off"},
	"everything": {"hooks=true", "namespace.create=true", "admissionPolicy.enabled=true", "injection.replaceInit=true",
		"apiPriority.enabled=true", "rbac.reader=true", "rbac.verifier=true", "sharedProxyUser=refuse",
		"metrics.service.enabled=true", "metrics.podMonitor.enabled=true", "metrics.podMonitor.labels.release=prometheus",
		"metrics.prometheusRule.enabled=true", "metrics.dashboard.enabled=true", "resourceQuota.enabled=true",
		"startupTaint.enabled=true", "renewRules={shop}", "imagePullSecrets[0].name=regcred", "test.namespace=outside",
		"nodeSelector.disk=ssd", "agent.listenAddress=127.0.0.1", "agent.extraEnv[0].name=HTTPS_PROXY",
		"agent.extraEnv[0].value=proxy", "agent.podAnnotations.team=mesh", "agent.podLabels.team=mesh",
		"agent.seLinuxType=spc_t", "agent.securityContext.appArmorProfile.type=Unconfined",
		"agent.securityContext.seccompProfile.type=Unconfined", "cni.runtimeBinDirs={/usr/lib/cni}",
		"affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key=a",
		"affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0]." +
			"operator=Exists"},
}

// openAPI is a definition in the OpenAPI file, from which a schema is made.
type openAPI map[string]any

// schemas writes a schema for each kind in Kubernetes' API into a directory of the test, and returns kubeconform's
// pattern for their paths. Fields that are not in the description are not allowed.
func schemas(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(isolated.BinDir(), "swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	var described struct{ Definitions map[string]openAPI }
	if err := json.Unmarshal(text, &described); err != nil {
		t.Fatal(err)
	}
	for name, d := range described.Definitions {
		switch _, open := d["additionalProperties"]; {
		case d["format"] == "int-or-string":
			described.Definitions[name] = openAPI{"type": []string{"integer", "string"}}
		case strings.HasSuffix(name, ".api.resource.Quantity"):
			described.Definitions[name] = openAPI{"type": []string{"number", "string"}}
		case d["properties"] != nil && !open:
			d["additionalProperties"] = false
		}
	}
	to, written := t.TempDir(), 0
	for name, d := range described.Definitions {
		kinds, _ := d["x-kubernetes-group-version-kind"].([]any)
		if len(kinds) != 1 {
			continue // types that a client sends with a request
		}
		kind := kinds[0].(map[string]any)
		data, err := json.Marshal(map[string]any{
			"allOf": []any{map[string]any{"$ref": "#/definitions/" + name}}, "definitions": reached(described.Definitions, name),
		})
		if err == nil {
			err = os.WriteFile(filepath.Join(to, strings.ToLower(fmt.Sprintf("%s_%s_%s.json", kind["kind"], kind["group"],
				kind["version"]))), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		written++
	}
	if written < 100 {
		t.Fatalf("%d kinds", written)
	}
	// For the core group, kubeconform passes the version as the group.
	const group = "{{if ne .Group .ResourceAPIVersion}}{{.Group}}{{end}}"
	return filepath.Join(to, "{{.ResourceKind}}_"+group+"_{{.ResourceAPIVersion}}.json")
}

// reached returns a definition and all definitions that it refers to, directly or not.
func reached(all map[string]openAPI, name string) map[string]openAPI {
	found, next := map[string]openAPI{}, []string{name}
	reference := regexp.MustCompile(`"#/definitions/([^"]+)"`)
	for len(next) > 0 {
		name, next = next[0], next[1:]
		if found[name] != nil {
			continue
		}
		found[name] = all[name]
		text, _ := json.Marshal(all[name]) // it was read from JSON, so there is no error
		for _, match := range reference.FindAllSubmatch(text, -1) {
			next = append(next, string(match[1]))
		}
	}
	return found
}

// strict is `kubeconform -strict` with these schemas.
func strict(t *testing.T) validator.Validator {
	t.Helper()
	skipped := map[string]struct{}{}
	for _, kind := range notOfKubernetes {
		skipped[kind] = struct{}{}
	}
	v, err := validator.New([]string{schemas(t)}, validator.Opts{Strict: true, SkipKinds: skipped})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// beginning matches the beginning of an object, in a template and rendered. It omits names that a template computes.
var beginning = regexp.MustCompile(`(?m)^kind: (\S+)(?:\nmetadata:\n  name: ([-a-z0-9.]+))?`)

// began returns the objects in a template or in what was rendered from it: the file, the kind, and the name.
func began(template, text string) (objects []string) {
	for _, match := range beginning.FindAllStringSubmatch(text, -1) {
		objects = append(objects, strings.TrimSpace(template+" "+match[1]+" "+match[2]))
	}
	return objects
}

// Everything that the chart renders, with all sets of values, matches Kubernetes' API and has no unknown field.
// kubeconform also finds duplicate fields. Every object of every template is rendered.
func TestSchemas(t *testing.T) {
	kubeconform := strict(t)
	for _, helm := range []string{"helm3", "helm4"} {
		skipped, rendered, checked := map[string]bool{}, map[string]bool{}, 0
		for name, values := range configurations {
			manifests := template(t, helm, dir(), values...)
			for document := range strings.SplitSeq(manifests, "\n# Source: ") {
				path, text, _ := strings.Cut(document, "\n")
				for _, object := range began(filepath.Base(path), text) {
					rendered[object] = true
					rendered[strings.Join(strings.Fields(object)[:2], " ")] = true
				}
			}
			for _, result := range kubeconform.Validate(name, io.NopCloser(strings.NewReader(manifests))) {
				what, _ := result.Resource.Signature()
				switch result.Status {
				case validator.Valid:
					checked++
				case validator.Skipped:
					skipped[what.GroupVersionKind()] = true
				case validator.Empty:
				default:
					t.Errorf("%s: %s %s: %v", name, what.Kind, what.Name, result.Err)
				}
			}
		}
		if got := slices.Sorted(maps.Keys(skipped)); !slices.Equal(got, notOfKubernetes) {
			t.Errorf("not of Kubernetes' API are %q, and said to be %q", got, notOfKubernetes)
		}
		all, err := filepath.Glob(filepath.Join(dir(), "templates", "*.yaml"))
		if err != nil || checked < 100 {
			t.Errorf("%v, %d objects were checked", err, checked)
		}
		for _, file := range all {
			source, err := os.ReadFile(file)
			objects := began(filepath.Base(file), string(source))
			if err != nil || len(objects) == 0 {
				t.Errorf("%s: %v, objects: %q", file, err, objects)
			}
			for _, object := range objects {
				if !rendered[object] {
					t.Errorf("no configuration renders %s", object)
				}
			}
		}
		t.Logf("%s: %d objects of %d templates", helm, checked, len(all))
	}
}

// ofAnyName are fields whose own fields may have any name.
var ofAnyName = []string{"Service.spec.selector", "annotations", "data", "hard", "labels", "limits", "matchLabels",
	"nodeSelector", "requests"}

// A misspelt field is found, wherever it is.
func TestSchemasSeeMisspeltFields(t *testing.T) {
	kubeconform := strict(t)
	seen, free := map[string]bool{}, map[string]bool{}
	for _, values := range configurations {
		for document := range strings.SplitSeq("\n"+template(t, "helm4", dir(), values...), "\n---\n") {
			var o map[string]any
			if err := yaml.Unmarshal([]byte(document), &o); err != nil {
				t.Fatalf("%v in\n%s", err, document)
			}
			if o == nil || slices.Contains(notOfKubernetes, fmt.Sprintf("%s/%s", o["apiVersion"], o["kind"])) {
				continue
			}
			misspell(o, fmt.Sprint(o["kind"]), func(path, parent string) {
				for _, name := range ofAnyName {
					if parent == name || strings.HasSuffix(parent, "."+name) {
						free[name] = true
						return
					}
				}
				if seen[path] {
					return
				}
				seen[path] = true
				text, err := yaml.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				if result := kubeconform.ValidateResource(resource.Resource{Bytes: text}); result.Err == nil {
					t.Errorf("%s is taken", path)
				}
			})
		}
	}
	if got := slices.Sorted(maps.Keys(free)); len(seen) < 200 || !slices.Equal(got, ofAnyName) {
		t.Errorf("%d fields; of any name are those of %q, and said to be those of %q", len(seen), got, ofAnyName)
	}
	t.Logf("%d fields", len(seen))
}

// misspell calls each for every field of an object and of its values, with that one field misspelt.
func misspell(value any, path string, each func(path, parent string)) {
	switch value := value.(type) {
	case []any:
		for _, v := range value {
			misspell(v, path, each)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			v := value[key]
			delete(value, key)
			value[key+"s"] = v
			each(path+"."+key, path)
			delete(value, key+"s")
			value[key] = v
			misspell(v, path+"."+key, each)
		}
	}
}

// One misspelt field in a template is found and named.
func TestSchemasSeeMisspeltTemplate(t *testing.T) {
	kubeconform, chart := strict(t), filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(chart, os.DirFS(dir())); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(chart, "templates", "daemonset.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	misspelt := bytes.Replace(text, []byte("terminationGracePeriodSeconds:"), []byte("terminationGracePeriodSecond:"), 1)
	if err := os.WriteFile(file, misspelt, 0o644); err != nil || bytes.Equal(text, misspelt) {
		t.Fatalf("%v, changed: %t", err, !bytes.Equal(text, misspelt))
	}
	found := []string{}
	for _, result := range kubeconform.Validate(file, io.NopCloser(strings.NewReader(template(t, "helm4", chart)))) {
		if result.Err != nil {
			found = append(found, result.Err.Error())
		}
	}
	if len(found) != 1 || !strings.Contains(found[0], "'terminationGracePeriodSecond'") {
		t.Errorf("%q", found)
	}
}
