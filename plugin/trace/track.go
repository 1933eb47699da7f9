package trace

import (
	"slices"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// track reports whether connection tracking looks at the packets of a family: it does as soon as a rule there asks
// about connections or translates addresses, in whichever chain. A chain of nat alone is no reason, and is not asked
// then; what else depends on connections, no rule can tell. Source: nf_ct_netns_get and its callers, in
// net/netfilter/nft_ct.c, nft_nat.c and nft_redir.c.
func (r Rules) track(family redirect.Family) bool {
	for _, t := range r.Tables {
		for _, c := range t.Chains {
			if t.Family == family && slices.ContainsFunc(c.Rules, func(r redirect.Rule) bool {
				return needsTracking(r.Matches, r.Target)
			}) {
				return true
			}
		}
	}
	return slices.ContainsFunc(r.Foreign, func(f Foreign) bool {
		return f.Family == family && slices.ContainsFunc(f.Rules, func(r Rule) bool {
			return needsTracking(r.Matches, r.Target)
		})
	})
}

// needsTracking reports whether a rule has the kernel track connections.
func needsTracking(matches []redirect.Match, target any) bool {
	switch target.(type) {
	case redirect.SaveMark, redirect.RestoreMark, redirect.SetZone, redirect.RedirectTo, TranslateTo:
		return true
	}
	return slices.ContainsFunc(matches, func(m redirect.Match) bool {
		switch m.(type) {
		case redirect.ConnState, redirect.ConnMark, redirect.Original, redirect.OriginalDestPorts, redirect.OriginalTo:
			return true
		}
		return false
	})
}
