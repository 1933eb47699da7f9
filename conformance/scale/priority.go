package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"text/template"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// applyAPIPriority creates what the chart creates with apiPriority.enabled, from the chart's template and values.
func (c *cluster) applyAPIPriority(ctx context.Context) error {
	chart := filepath.Join(build.Root(), "chart", "istio-pod-network-controller")
	defaults, err := os.Open(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return err
	}
	defer defaults.Close()
	var values map[string]any
	if err := yaml.NewYAMLOrJSONDecoder(defaults, 4096).Decode(&values); err != nil {
		return err
	}
	priority, ok := values["apiPriority"].(map[string]any)
	if !ok {
		return errors.New("the chart has no such value any more")
	}
	priority["enabled"] = true
	var manifests bytes.Buffer
	const name = "apipriority.yaml"
	t, err := template.New(name).Funcs(template.FuncMap{ // the functions of Helm and the chart that this template uses
		"include": func(name string, _ any) string {
			return map[string]string{"namespace": account, "labels": "app: scale"}[name]
		},
		"nindent": func(_ int, text string) string { return "\n    " + text },
	}).ParseFiles(filepath.Join(chart, "templates", name))
	if err == nil {
		err = t.Execute(&manifests, map[string]any{"Values": values})
	}
	if err != nil {
		return err
	}
	for documents := yaml.NewYAMLOrJSONDecoder(&manifests, 4096); ; {
		var document json.RawMessage
		if err := documents.Decode(&document); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := c.makeFlowControl(ctx, document); err != nil {
			return err
		}
	}
}

// makeFlowControl creates a priority level or a flow schema. It ignores an empty document.
func (c *cluster) makeFlowControl(ctx context.Context, document []byte) error {
	var kind metav1.TypeMeta
	if err := json.Unmarshal(document, &kind); err != nil {
		return err
	}
	switch kind.Kind {
	case "PriorityLevelConfiguration":
		var level flowcontrolv1.PriorityLevelConfiguration
		err := json.Unmarshal(document, &level)
		if err == nil {
			_, err = c.client.FlowcontrolV1().PriorityLevelConfigurations().Create(ctx, &level, metav1.CreateOptions{})
		}
		return err
	case "FlowSchema":
		var schema flowcontrolv1.FlowSchema
		err := json.Unmarshal(document, &schema)
		if err == nil {
			_, err = c.client.FlowcontrolV1().FlowSchemas().Create(ctx, &schema, metav1.CreateOptions{})
		}
		return err
	}
	return nil
}
