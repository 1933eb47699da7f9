package verify

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	kubetesting "k8s.io/client-go/testing"
)

// A run that proves nothing, for any reason, has an error in its JUnit file and an object as JSON, so that neither can
// be mistaken for a successful run or a missing one.
func TestReportOfFailure(t *testing.T) {
	for name, test := range map[string]struct {
		make    func(*fakeCluster, context.CancelCauseFunc)
		options options
		says    string
		whole   bool // the whole run fails, not a node
	}{
		"no namespace": {func(f *fakeCluster, _ context.CancelCauseFunc) {
			f.PrependReactor("create", "namespaces", func(kubetesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewForbidden(corev1.Resource("namespaces"), "", errors.New(`User "reader" cannot`))
			})
		}, options{}, "the verb create on namespaces", true},
		"no agent": {func(*fakeCluster, context.CancelCauseFunc) {}, options{namespace: "other"},
			"no agent of istio-pod-network", true},
		"interrupted before any pod": {func(f *fakeCluster, cancel context.CancelCauseFunc) {
			f.PrependReactor("create", "serviceaccounts", func(kubetesting.Action) (bool, runtime.Object, error) {
				cancel(errors.New("interrupt signal received"))
				return true, nil, context.Canceled
			})
		}, options{}, "context canceled", true},
		"interrupted": {func(f *fakeCluster, cancel context.CancelCauseFunc) {
			f.change = func(kind, _ string, p *corev1.Pod) {
				if pending(p); kind == "peer" {
					cancel(errors.New("interrupt signal received"))
				}
			}
		}, options{}, "interrupt signal received", false},
		"never ready": {func(f *fakeCluster, _ context.CancelCauseFunc) {
			f.change = func(_, _ string, p *corev1.Pod) { pending(p) }
		}, options{timeout: short}, "the peer does not come up: not within 50ms", false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			test.make(f, cancel)
			o := test.options
			o.junit = filepath.Join(t.TempDir(), "junit.xml")
			status, stdout, stderr, err := f.run(ctx, o, output.JSON)
			if status != outcome.NotAsked {
				t.Errorf("status %d, %v:\n%s", status, err, stderr)
			}
			var v Verification
			if err := json.Unmarshal([]byte(stdout), &v); err != nil || v.Kind != "Verification" || v.Items == nil ||
				v.Summary.Well != 0 || strings.Contains(v.Error, test.says) != test.whole {
				t.Errorf("%v: %s", err, stdout)
			}
			data, err := os.ReadFile(o.junit)
			if err != nil {
				t.Fatal(err)
			}
			var all suites
			if err := xml.Unmarshal(data, &all); err != nil || len(all.Suites) == 0 {
				t.Fatalf("%v: %s", err, data)
			}
			for _, s := range all.Suites {
				if s.Errors != 1 || s.Cases[0].Error == nil || !strings.Contains(s.Cases[0].Error.Message, test.says) {
					t.Errorf("%s", data)
				}
			}
			if f.there(t) != nil {
				t.Errorf("the namespace is left:\n%s", stderr)
			}
		})
	}
}

// If the file cannot be written, the results are still printed.
func TestReportDespiteNoFile(t *testing.T) {
	status, stdout, _, err := newFake(t).run(t.Context(), options{junit: t.TempDir()}, output.JSON)
	if status != outcome.NotAsked || err == nil || !strings.Contains(stdout, `"kind": "Verification"`) {
		t.Errorf("status %d, %v: %s", status, err, stdout)
	}
}

// A wrong command line has no report.
func TestNoReportOfMisuse(t *testing.T) {
	o := options{nodes: "windows", junit: filepath.Join(t.TempDir(), "junit.xml")}
	status, stdout, _, err := newFake(t).run(t.Context(), o, output.JSON)
	if _, missing := os.Stat(o.junit); status != outcome.Misused || stdout != "" || missing == nil {
		t.Errorf("status %d, %v: %s", status, err, stdout)
	}
}
