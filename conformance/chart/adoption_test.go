package chart

import (
	"strings"
	"testing"
)

// Helm can take over applied manifests as a release, with --take-ownership. The objects stay the same, and the agents
// are not restarted. Without that flag Helm refuses, and changes nothing. Helm 4 applies on the server's side. There,
// fields that kubectl has set stay kubectl's and conflict at their next change, unless Helm 4 is told to work as Helm 3
// does. The release remembers that setting.
func TestAdoption(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		manifests := template(t, helm, "namespace.create=false")
		applied(t, manifests)
		field := func(kind, object, path string) string {
			t.Helper()
			out, errs, err := program(nil, "kubectl", "get", kind, object, "-n", system, "-o", "jsonpath={"+path+"}")
			if err != nil {
				t.Fatal(errs)
			}
			return out
		}
		const daemonset = "istio-pod-network-agent"
		identity := func() string {
			return field("daemonset", daemonset, ".metadata.uid") + field("daemonset", daemonset, ".metadata.generation")
		}
		before := identity()
		install := func(flags ...string) (string, error) {
			_, errs, err := program(nil, helm, append([]string{"install", name, dir(), "-n", system}, flags...)...)
			return errs, err
		}
		if errs, err := install(); err == nil || !strings.Contains(errs, "ownership") {
			t.Errorf("without --take-ownership: %v %s", err, errs)
		}
		flags := map[string][]string{"helm3": {"--take-ownership"},
			"helm4": {"--take-ownership", "--server-side=false"}}[helm]
		if errs, err := install(flags...); err != nil {
			t.Fatalf("%q: %v %s", flags, err, errs)
		}
		if after := identity(); after != before {
			t.Errorf("the DaemonSet was %s, and is %s", before, after)
		}
		owned := 0
		for _, o := range objects(t, manifests) {
			if field(o.GetKind(), o.GetName(), `.metadata.annotations.meta\.helm\.sh/release-name`) != name {
				t.Errorf("%s %s is not the release's", o.GetKind(), o.GetName())
			}
			owned++
		}
		if owned < 5 {
			t.Errorf("%d objects", owned)
		}
		_, errs, err := program(nil, helm, "upgrade", name, dir(), "-n", system, "--set=agent.logLevel=debug")
		if err != nil {
			t.Errorf("the next upgrade: %v %s", err, errs)
		}
		args := field("daemonset", daemonset, ".spec.template.spec.containers[0].args")
		if !strings.Contains(args, "--log-level=debug") {
			t.Errorf("the next upgrade changes nothing: %s", args)
		}
		// The hook would wait for agents, but none run here.
		if _, errs, err := program(nil, helm, "uninstall", name, "-n", system, "--no-hooks"); err != nil {
			t.Error(errs)
		}
	})
}
