package explain

import (
	"errors"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/plugin/annotation"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// If the tool cannot find out whether a pod has its rules, or why it has none, it says which step would help, and which
// right, if one is missing. The exit status shows that unless something is not well. What the agent is not configured
// to check counts neither as well nor as not well: see "not-looked-at" in TestLive.
func TestUnasked(t *testing.T) {
	situations{
		"earlier-pod": {injected, func(f *fake) { f.told.UID = "of before" }, outcome.NotAsked},
		"no-exec":     {injected, func(f *fake) { f.errs["exec"] = forbidden("pods/exec") }, outcome.NotAsked},
		"no-agent": {injected, func(f *fake) {
			f.agent = nil
			f.sets = []appsv1.DaemonSet{{ObjectMeta: metav1.ObjectMeta{Namespace: "mesh-network"}}}
		}, outcome.NotAsked},
		"no-exec-and-ill": {injected, func(f *fake) {
			f.errs["exec"] = forbidden("pods/exec")
			f.pod.Status.InitContainerStatuses[0] = givenUp(gaveUp)
		}, outcome.NotWell},
		"no-exec-plain": {plain, func(f *fake) { f.errs["exec"] = forbidden("pods/exec") }, outcome.Well},
		"no-exec-plain-marked": {plain, func(f *fake) {
			f.pod.Annotations = injected().pod.Annotations
			delete(f.pod.Annotations, annotation.SidecarStatus)
			f.errs["exec"] = forbidden("pods/exec")
		}, outcome.NotAsked},
		"excluded-unknown": {injected, func(f *fake) {
			f.errs["configmap"] = forbidden("configmaps")
			f.told.Record.Decision, f.told.Record.Reason, f.told.Rules = "untouched", "namespace-excluded", inspect.Rules{}
			f.pod.Annotations[annotation.Status] = annotation.NotRequired
		}, outcome.NotAsked},
		"no-namespace": {plain, func(f *fake) { f.errs["namespace"] = forbidden("namespaces") }, outcome.NotAsked},
		"no-namespace-annotated": {plain, func(f *fake) {
			f.config = `{"type": "istio-pod-network", "selection": "annotated"}`
			f.errs["namespace"] = forbidden("namespaces")
		}, outcome.NotAsked},
		"no-exec-no-mark": {injected, func(f *fake) {
			f.errs["exec"], f.pod.Annotations = forbidden("pods/exec"), map[string]string{annotation.SidecarStatus: "{}"}
		}, outcome.NotAsked},
		"few-rights": {injected, func(f *fake) {
			for _, what := range []string{"namespace", "agents", "daemonsets", "events"} {
				f.errs[what] = forbidden(what)
			}
		}, outcome.NotAsked},
		"no-answer": {injected, func(f *fake) { f.errs["exec"] = errAway }, outcome.NotAsked},
		"away": {injected, func(f *fake) {
			for _, what := range []string{"namespace", "agents", "daemonsets", "events"} {
				f.errs[what] = errAway
			}
		}, outcome.NotAsked},
		"old-agent": {injected, func(f *fake) {
			f.errs["exec"] = errors.New(`istio-pod-network-agent inspect: unexpected argument "pod"; valid: node`)
		}, outcome.NotAsked},
		"no-webhooks": {plain, func(f *fake) { f.errs["webhooks"] = forbidden("webhooks") }, outcome.NotAsked},
	}.show(t)
}
