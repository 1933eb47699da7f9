package redirect

// Answer is what a question of a decision came to.
type Answer struct {
	// Reason is what the question is about: the reason of the verdict, where it has one.
	Reason  Reason
	Verdict Verdict // "": the decision went on
	From    Origin  // where the answer was found; zero: nothing stands anywhere
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

// Explain makes the decision that Decide makes, by the same code, and says how. The error is Decide's.
func Explain(pod Pod, policy Policy) (Explanation, error) {
	note := notes{origins: map[string]Origin{}}
	decision, err := decide(pod, policy, &note)
	e := Explanation{Decision: decision, Answers: note.answers}
	if err != nil && decision.Spec.Mode == "" || decision.Verdict != Redirect {
		return e, err
	}
	for _, s := range settings {
		from, said := note.origins[s.name]
		if !said {
			from = Origin{Kind: OfConfig, Name: "redirect." + s.name}
		}
		e.Settings = append(e.Settings, Setting{s.name, s.print(&decision.Spec), from})
	}
	return e, err
}

// notes are what Explain wants to know of a decision; nil takes none.
type notes struct {
	answers []Answer
	origins map[string]Origin // of settings, by their names
}

func (n *notes) answered(reason Reason, a finding) {
	if n != nil {
		n.answers = append(n.answers, Answer{reason, a.verdict, a.from, a.err})
	}
}

func (n *notes) found(setting string, from Origin) {
	if n != nil {
		n.origins[setting] = from
	}
}
