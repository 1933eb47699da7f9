package netfilter

import (
	"strings"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// covering are profiles that hold every kind of rule once per mode, for the backends whose mutants are tried in part.
var covering = []string{}

// equivalents are rules whose absence no packet can tell.
var equivalents = []struct {
	chain, text string // text is a part of the rule's text
	in          func(profile testnet.Profile) bool
	reason      string
}{}

// equivalent returns why nothing changes without the mutant's rule, "" if something must.
func equivalent(profile testnet.Profile, m mutant) string {
	for _, e := range equivalents {
		if m.chain == e.chain && strings.Contains(m.text, e.text) && (e.in == nil || e.in(profile)) {
			return e.reason
		}
	}
	return ""
}
