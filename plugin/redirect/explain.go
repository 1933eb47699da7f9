package redirect

// Answer is what a question of a decision came to.
type Answer struct {
	// Reason is what the question is about: the reason of the verdict, where it has one.
	Reason  Reason
	Verdict Verdict // "": the decision went on
	From    Origin  // where the answer was found; zero: nothing is said anywhere
	Err     error   // what was found cannot be read
}

// Setting is one of a redirected pod's settings.
type Setting struct {
	Name  string // key of the `redirect` object
	Value any    // as in that object
	From  Origin
}

// Explanation is a decision with what it was made by.
type Explanation struct {
	Decision
	Answers  []Answer  // in the order in which the questions were asked; the last one may have ended it
	Settings []Setting // in the order of the documentation; none unless the verdict is Redirect and all can be read
}

// Explain makes the decision that Decide makes, by the same code, and says how. The error is Decide's. The plugin,
// which explains nothing, is not made larger by it.
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
