package mark

import (
	"maps"
	"testing"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
)

// A pod is patched only if one of the four annotations differs from its record. Other annotations are not touched.
func TestMarkIsNeeded(t *testing.T) {
	type annotations = map[string]string
	redirected := agenttest.RecordFor(agenttest.MeshPod("cart"), "1/1")
	untouched := redirected
	untouched.Decision, untouched.Reason = record.Untouched, "mode-none"
	ofOne := redirected
	ofOne.Families = "IPv4"
	initialized := annotations{
		annotation.Status: annotation.Initialized, annotation.NetNS: agenttest.Boot + "/1/1", annotation.Reason: "injected",
	}
	older := maps.Clone(initialized)
	delete(older, annotation.Reason)
	notRequired := annotations{
		annotation.Status: annotation.NotRequired, annotation.NetNS: agenttest.Boot + "/1/1", annotation.Reason: "mode-none",
	}
	with := func(a annotations, key, value string) annotations {
		a = maps.Clone(a)
		a[key] = value
		return a
	}
	for name, c := range map[string]struct {
		record record.Record
		has    annotations
		want   annotations
		result Result
	}{
		"none, with rules":           {redirected, nil, initialized, Marked},
		"none, without rules":        {untouched, nil, notRequired, Marked},
		"it is there":                {redirected, initialized, initialized, AlreadyOn},
		"it is there, without rules": {untouched, notRequired, notRequired, AlreadyOn},
		"that of an older release":   {redirected, older, older, AlreadyOn},
		"that of the sandbox before": {redirected, with(initialized, annotation.NetNS, agenttest.Boot+"/9/9"), initialized,
			Marked},
		"without a network namespace": {
			redirected, annotations{annotation.Status: annotation.Initialized}, initialized, Marked,
		},
		"another reason with rules": {redirected, with(initialized, annotation.Reason, "mode-none"), initialized, Marked},
		"it had no rules":           {redirected, notRequired, initialized, Marked},
		"it had rules":              {untouched, initialized, notRequired, Marked},
		"of one family":             {ofOne, nil, with(initialized, annotation.Families, "IPv4"), Marked},
		"it was of both":            {ofOne, initialized, with(initialized, annotation.Families, "IPv4"), Marked},
		"it was of one":             {redirected, with(initialized, annotation.Families, "IPv4"), initialized, Marked},
		"it is of one": {ofOne, with(initialized, annotation.Families, "IPv4"),
			with(initialized, annotation.Families, "IPv4"), AlreadyOn},
		"another reason":        {untouched, with(notRequired, annotation.Reason, "ambient"), notRequired, Marked},
		"others are left alone": {redirected, annotations{"other": "x"}, with(initialized, "other", "x"), Marked},
	} {
		pod := agenttest.MeshPod("cart")
		maps.Copy(pod.Annotations, c.has)
		b := newBench(t, pod, c.record)
		for range 2 {
			if !b.reconcile(t.Context(), string(pod.UID)) {
				t.Errorf("%s: to be tried again", name)
			}
		}
		writes := map[Result]int{Marked: 1}[c.result]
		b.expect(t, writes, c.result)
		want := with(c.want, annotation.SidecarStatus, "{}")
		if got := b.pod.Annotations; !maps.Equal(got, want) {
			t.Errorf("%s: the pod has %q, want %q", name, got, want)
		}
	}
}
