package status

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/inspect"
)

// answers says what the tool uses each question's answer for.
var answers = map[string]string{
	"files": "what sysdump has of the node's CNI directories and records",
	"node":  "status, and what check and version say of its node",
	"pod":   "what explain says of a pod's record and rules",
	"rules": "what sysdump has of the rules of chosen pods",
	"trace": "what trace --live says of the kernel",
}

// Upgrade says what to do about an agent that cannot answer.
const Upgrade = "upgrade the agents to the release of this tool (docs/operation.md, Upgrade)"

// Unanswered returns the questions of this tool that the node's agent does not know, each with what needs the answer.
func (n Node) Unanswered() (questions []string) {
	if n.Agent == nil && !n.CannotAnswer() {
		return nil // unknown
	}
	for _, question := range inspect.Questions {
		if !n.knows(question) {
			questions = append(questions, fmt.Sprintf("inspect %s (%s)", question, answers[question]))
		}
	}
	return questions
}

// knows reports whether the agent knows the question. An agent that does not report its questions knows node alone.
func (n Node) knows(question string) bool {
	switch {
	case n.Agent == nil:
		return false
	case n.Agent.Questions == nil:
		return question == "node"
	}
	return slices.Contains(n.Agent.Questions, question)
}

// warnOfAnswers adds a warning about what the agent, which has answered, does not know. Releases without the question
// trace (0.1) also lack the fields of node's answer that were added with it.
func (n *Node) warnOfAnswers() {
	lacking := n.Unanswered()
	if !n.knows("trace") {
		lacking = append(lacking, "whether another mesh's plugin is in its network, and which pods' rules it cannot look at")
	}
	if len(lacking) > 0 {
		n.Warnings = append(n.Warnings, output.Finding{What: "its agent cannot answer " + strings.Join(lacking, ", "),
			Next: Upgrade})
	}
}
