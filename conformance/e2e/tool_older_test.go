package e2e

import (
	"slices"
	"strings"
)

// asksAgents runs status and version with healthy agents of a version. can are the questions that these agents answer.
// cannot are those that version lists as unknown to the agents, and that status warns about.
func (r *rig) asksAgents(version string) (can, cannot []string) {
	r.Helper()
	var s struct {
		Summary     struct{ Well, NotWell, NotAsked int }
		Rollouts    []struct{ DaemonSet string }
		NotLookedAt []string
		Items       []struct {
			Name, Verdict string
			Findings      []struct{ What, Next string }
			Warnings      []struct{ What, Next string }
			Agent         struct {
				Agent     string
				Ready     bool
				Questions []string
				Plugin    struct{ Version string }
			}
		}
	}
	status := r.toolSays(&s, "status", "--wait", waits())
	if status != 0 || s.Summary.Well != len(nodes.Nodes) || len(s.Items) != len(nodes.Nodes) || len(s.Rollouts) > 0 {
		r.Fatalf("status of agents of %s: exit status %d: %+v", version, status, s)
	}
	for _, n := range s.Items {
		if n.Agent.Agent != version || n.Agent.Plugin.Version != version || !n.Agent.Ready {
			r.Errorf("status of agents of %s: %+v", version, n)
		}
	}
	can = s.Items[0].Agent.Questions
	var v struct {
		Summary struct{ Fit, DoNotFit, NotAsked int }
		Items   []struct {
			Name, Verdict, Agent string
			CannotAnswer         []string
		}
	}
	status = r.toolSays(&v, "version")
	if status != 0 || v.Summary.Fit != len(nodes.Nodes) {
		r.Fatalf("version of agents of %s: exit status %d: %+v", version, status, v)
	}
	for i, n := range v.Items {
		var its []string
		warned := ""
		for _, warning := range s.Items[i].Warnings {
			warned += warning.What
		}
		if (len(n.CannotAnswer) > 0) != strings.Contains(warned, "cannot answer") {
			r.Errorf("agents of %s cannot answer %q, and status warns %q", version, n.CannotAnswer, warned)
		}
		for _, line := range n.CannotAnswer { // a line is like "inspect trace (what needs it)"
			words := strings.Fields(line)
			if len(words) < 3 || words[0] != "inspect" {
				r.Fatalf("version of agents of %s: %q", version, line)
			}
			if s.Items[i].Name != n.Name || !strings.Contains(warned, line) {
				r.Errorf("status of agents of %s warns %q, and not of %q", version, warned, line)
			}
			its = append(its, words[1])
		}
		if i > 0 && !slices.Equal(its, cannot) || n.Agent != version {
			r.Errorf("version of agents of %s: %+v", version, v)
		}
		cannot = its
	}
	return can, cannot
}

// namesWhatOlderLack fails unless the tool has listed, for agents of the last release, exactly the questions that only
// this tree's agents answer, and none for this tree's agents.
func (r *rig) namesWhatOlderLack(older, olderCannot, newer, newerCannot []string) {
	r.Helper()
	var lacking []string
	for _, question := range newer {
		if !slices.Contains(older, question) {
			lacking = append(lacking, question)
		}
	}
	slices.Sort(olderCannot)
	slices.Sort(lacking)
	if len(newer) == 0 || len(newerCannot) > 0 || !slices.Equal(lacking, olderCannot) {
		r.Errorf("agents of before know %q and of now %q; of those of before the tool says that they cannot answer %q, of "+
			"those of now %q", older, newer, olderCannot, newerCannot)
	}
}

// refusesTrace runs trace --live with an agent that does not support it. The tool says so, and explain still works.
func (r *rig) refusesTrace(pod string) {
	r.Helper()
	status, out := r.toolPrints("trace", r.namespace+"/"+pod, "--from=app", "--to=10.96.0.1:443", "--live")
	if said := strings.Join(strings.Fields(string(out)), " "); status != 3 ||
		!strings.Contains(said, "is of a release that cannot tell") {
		r.Errorf("trace --live of an agent that does not know it: exit status %d: %s", status, out)
	}
	if status, out := r.toolPrints("explain", r.namespace+"/"+pod); status != 0 {
		r.Errorf("explain of a pod whose agent is of the last release: exit status %d: %s", status, out)
	}
}
