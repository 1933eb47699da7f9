package e2e

import "slices"

// toolChecks has check and version of the operator's tool look at a cluster where all is well.
func (r *rig) toolChecks() {
	r.Helper()
	type item struct{ Check, Node, Verdict, What, MissingRight string }
	var c struct {
		Kind    string
		Summary struct{ NotWell int }
		Items   []item
	}
	status := r.toolSays(&c, "check")
	if status != 0 || c.Kind != "Check" || c.Summary.NotWell != 0 {
		r.Errorf("check: status %d: %+v", status, c)
	}
	well := func(check, node string) bool {
		return slices.ContainsFunc(c.Items, func(i item) bool {
			return i.Check == check && i.Node == node && i.Verdict == "well"
		})
	}
	for _, check := range []string{"kubernetes-version", "admission-api", "nodes", "daemonset", "config", "pod-security",
		"policy", "clock", "versions", "other-meshes"} {
		if !well(check, "") {
			r.Errorf("check says nothing good of %s: %+v", check, c.Items)
		}
	}
	for _, n := range nodes.Nodes {
		if !well("agent", n.Name) {
			r.Errorf("check says nothing good of the agent on %s: %+v", n.Name, c.Items)
		}
	}
	if slices.ContainsFunc(c.Items, func(i item) bool { return i.MissingRight != "" }) {
		r.Errorf("an administrator lacks rights: %+v", c.Items)
	}
	c.Items = nil
	if status := r.toolSays(&c, "check", "--pre", "-n", system); status != 0 || !well("pod-security", "") ||
		!well("nodes", "") || well("daemonset", "") {
		r.Errorf("check --pre: status %d: %+v", status, c)
	}
	var v struct {
		Kind    string
		Summary struct{ Fit, DoNotFit int }
		Items   []struct {
			Agent  string
			Plugin struct{ Version string }
		}
	}
	status = r.toolSays(&v, "version")
	if status != 0 || v.Kind != "Version" || v.Summary.Fit != len(nodes.Nodes) {
		r.Errorf("version: status %d: %+v", status, v)
	}
	for _, n := range v.Items {
		if n.Agent == "" || n.Plugin.Version != n.Agent {
			r.Errorf("version: %+v", v)
		}
	}
}
