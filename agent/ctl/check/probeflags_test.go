package check

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/golden"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Nothing is created without permission, or with an invalid command line.
func TestProbeMisused(t *testing.T) {
	for words, o := range map[string]options{
		"--yes creates what is listed above": {before: true, probe: probeOptions{wanted: true}},
		"some of node-a,node-b": {before: true, probe: probeOptions{wanted: true, yes: true,
			nodes: "x"}},
		"kubernetesDistribution: invalid value \"x\"":   probing("kubernetesDistribution=x"),
		"KEY=VALUE with one of the keys":                probing("agent.port=1"),
		"image.digest: invalid value":                   probing("image.digest=1"),
		"backend: invalid value \"x\"; valid: auto, nf": probing("backend=x"),
		"cni.mode: invalid value \"x\"; valid: chain,":  probing("cni.mode=x"),
		"valid: Always, IfNotPresent, Never":            probing("image.pullPolicy=x"),
		"openshift.mode: invalid value":                 probing("openshift.mode=x"),
		"--values /none": {before: true, probe: probeOptions{wanted: true, yes: true,
			files: []string{"/none"}}},
	} {
		l := newProbedLab()
		stdout, _, err := l.run(t.Context(), o, output.Table)
		if outcome.StatusOf(err) != outcome.Misused || !strings.Contains(err.Error(), words) || stdout != "" ||
			len(l.pods) > 0 || l.there(t) {
			t.Errorf("%s: %v, %s", words, err, stdout)
		}
	}
}

// After Ctrl-C the namespace is gone, too. --cleanup removes what a killed run has left.
func TestProbeCleansUp(t *testing.T) {
	l := newProbedLab()
	ctx, cancel := context.WithCancel(t.Context())
	l.ends = func(_ string, p *corev1.Pod) { p.Status.Phase = corev1.PodPending; cancel() }
	stdout, stderr, err := l.run(ctx, probing(), output.Table)
	if outcome.StatusOf(err) != outcome.NotAsked || l.there(t) || !strings.Contains(stdout, "not looked at") {
		t.Errorf("%v, %s, %s", err, stdout, stderr)
	}
	left := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace, UID: "left", Labels: space.Labels()}}
	if _, err := l.src.Core.Namespaces().Create(t.Context(), left, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"json", "yaml", "txt"} { // the first one removes it
		stdout, stderr, err = l.run(t.Context(), options{cleanup: true}, output.Format(format))
		if err != nil || stderr != "" || l.there(t) {
			t.Errorf("%v, %s, %s", err, stdout, stderr)
		}
		golden.Compare(t, "testdata/cleanup."+format, stdout)
	}
}

// The platform of each distribution is that of the chart.
func TestPlatforms(t *testing.T) {
	all, err := presets()
	if err != nil || len(all) < 15 {
		t.Fatalf("%v, %d presets", err, len(all))
	}
	for name, its := range all {
		v, err := readValues(nil, []string{"kubernetesDistribution=" + strings.ToUpper(name)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := v.platform()
		if err != nil || p.distribution != name || p.confDir != its.ConfDir || p.binDir != its.BinDir || p.mode != its.Mode ||
			p.confDirs[0] != its.ConfDir || p.binDirs[0] != its.BinDir || its.ConfDir == "" {
			t.Errorf("%s: %+v, %v; the preset is %+v", name, p, err, its)
		}
	}
	for set, want := range map[string]string{"image.tag=3": "istio-pod-network-agent:3",
		"image.digest=sha256:" + strings.Repeat("a", 64): "istio-pod-network-agent@sha256:" + strings.Repeat("a", 64)} {
		v, err := readValues(nil, []string{set}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if image, err := v.image(); image != want || err != nil {
			t.Errorf("%s: %s, %v", set, image, err)
		}
	}
	v, err := readValues([]string{"-"}, []string{"cni.mode=nad"}, strings.NewReader("openshift: {mode: auxChain}\n"+
		"kubernetesDistribution: OpenShift\n"))
	if p, _ := v.platform(); err != nil || p.mode != "nad" {
		t.Errorf("%+v, %v", p, err)
	}
	if v, _ := readValues(nil, nil, nil); fmt.Sprint(v.image()) == "" {
		t.Error("no image")
	}
}

// The choices are those in the chart's schema.
func TestChoices(t *testing.T) {
	text, err := os.ReadFile("../../../chart/istio-pod-network-controller/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type schema struct {
		Enum       []any              `json:"enum"`
		Properties map[string]*schema `json:"properties"`
	}
	var all schema
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for key := range settable {
		its := &all
		for name := range strings.SplitSeq(key, ".") {
			if its = its.Properties[name]; its == nil {
				t.Fatalf("the schema has no %s", key)
			}
		}
		var valid []string
		for _, c := range choices {
			if c.key == key {
				valid = c.valid
			}
		}
		if key != "kubernetesDistribution" && fmt.Sprint(its.Enum) != fmt.Sprint(valid) {
			t.Errorf("%s: %q, and the schema has %q", key, valid, its.Enum)
		}
	}
}
