package redirect

// Answer is the answer to one question of a decision.
type Answer struct {
	// Reason is the reason that the decision has if this question ends it.
	Reason  Reason
	Verdict Verdict // empty: the question did not end the decision
	From    Origin  // where the answer was found; zero: nowhere
	Err     error   // the value that was found is invalid
}

// Setting is one of a redirected pod's settings.
type Setting struct {
	Name  string // the key in the `redirect` object
	Value any    // the value in the form of that object
	From  Origin
}

// Explanation is a decision and the answers and settings that led to it.
type Explanation struct {
	Decision
	Answers  []Answer  // in the order of the questions; only the last one may have ended the decision
	Settings []Setting // in the order of the documentation; only if the verdict is Redirect and every setting is valid
}

// Explain returns the decision of Decide, made by the same code, and how it was made. Its error is that of Decide. The
// plugin does not call it, so it does not enlarge the plugin's binary.
func Explain(pod Pod, policy Policy) (Explanation, error) {
	var e Explanation
	var err error
	e.Decision, err = decide(&pod, &policy, func(q *question, c *inquiry, verdict Verdict) {
		e.Answers = append(e.Answers, Answer{q.reason, verdict, q.origin(c), c.err})
	})
	if e.Verdict != Redirect || e.Spec.Mode == "" {
		return e, err
	}
	for _, s := range settings {
		from, said := s.origin(&pod, pod.proxy())
		if !said {
			from = Origin{Kind: OfConfig, Name: "redirect." + s.name}
		}
		if dual, known := pod.DualStack(); s.name == "families" && policy.Redirect.Families == CapturedProxy &&
			(dual || !known) {
			from = pod.proxy().ofVariable(EnvDualStack)
		}
		e.Settings = append(e.Settings, Setting{s.name, s.print(&e.Spec), from})
	}
	return e, err
}
