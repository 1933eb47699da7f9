package cluster

import (
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// LacksRight reports whether the API server has refused a request because of the rights of its user. Admission refuses
// with the same status, and its text does not begin with the user. Source: k8s.io/apiserver,
// pkg/endpoints/handlers/responsewriters (ForbiddenStatusError) and pkg/admission (NewForbidden).
func LacksRight(err error) bool {
	if apierrors.IsUnauthorized(err) {
		return true
	}
	if !apierrors.IsForbidden(err) {
		return false
	}
	_, why, said := strings.Cut(err.Error(), " is forbidden: ")
	return !said || strings.HasPrefix(why, "User ")
}

// Needs returns the right that a failed request needs, in parentheses, to stand behind what could not be done. It
// returns "" if the request has failed for another reason: then the right would not help.
func Needs(right string, err error) string {
	if !LacksRight(err) {
		return ""
	}
	return " (it needs " + right + ")"
}

// RightToAsk returns the right that asking an agent in a namespace needs.
func RightToAsk(namespace string) string {
	return "the verbs get and create on pods/exec in namespace " + namespace
}

// NextUnlisted returns what to do if the agents could not be listed.
func NextUnlisted(err error) string {
	if LacksRight(err) {
		return "Look again with that right in all namespaces, or name the agents' by --agents-namespace."
	}
	return nextUnanswered
}

// NextUnasked returns what to do if an agent in a namespace could not be asked.
func NextUnasked(namespace string, err error) string {
	if LacksRight(err) {
		return "Look again with " + RightToAsk(namespace) + "."
	}
	return "See whether the agent runs: istio-pod-networkctl status"
}

// nextUnanswered is what to do if the API server does not answer, or with an error that is not about the user.
const nextUnanswered = "Look again once the API server answers."
