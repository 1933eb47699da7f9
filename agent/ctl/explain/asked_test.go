package explain

import (
	"errors"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/plugin/annotation"
)

// What could not be asked for is named, with the right that is missing.
func TestUnasked(t *testing.T) {
	situations{
		"earlier-pod": {injected, func(f *fake) { f.told.UID = "of before" }, outcome.Well},
		"no-exec":     {injected, func(f *fake) { f.errs["exec"] = forbidden("pods/exec") }, outcome.Well},
		"no-exec-no-mark": {injected, func(f *fake) {
			f.errs["exec"], f.pod.Annotations = forbidden("pods/exec"), map[string]string{annotation.SidecarStatus: "{}"}
		}, outcome.NotAsked},
		"few-rights": {injected, func(f *fake) {
			for _, what := range []string{"namespace", "agents", "daemonsets", "events"} {
				f.errs[what] = forbidden(what)
			}
		}, outcome.Well},
		"old-agent": {injected, func(f *fake) {
			f.errs["exec"] = errors.New(`istio-pod-network-agent inspect: unexpected argument "pod"; valid: node`)
		}, outcome.Well},
		"no-webhooks": {plain, func(f *fake) { f.errs["webhooks"] = forbidden("webhooks") }, outcome.Well},
	}.show(t)
}
