package trace

import (
	"net/netip"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Text returns the rule in the syntax of nft(8), or with iptables in that of iptables-restore; "" for what no rule
// does.
func (s Step) Text() string {
	if s.Rule == 0 {
		return ""
	}
	target, ours := s.rule.Target.(redirect.Target)
	if ours && s.words && !s.foreign {
		return redirect.Rule{Matches: s.rule.Matches, Target: target}.IptablesText()
	}
	if !ours {
		target = redirect.Return{}
	}
	t := redirect.Table{Family: s.family, Kind: s.Kind}
	text := redirect.Rule{Matches: s.rule.Matches, Target: target}.Lines(t)[0].Text
	switch t := s.rule.Target.(type) {
	case TranslateTo:
		return strings.TrimSuffix(text, "return") + "dnat to " + addressText(netip.AddrPort(t))
	case Untrack:
		return strings.TrimSuffix(text, "return") + "notrack"
	}
	return text
}

// decide marks the step because of which the packet lands where it does: the rule that captures or drops it, and else
// the last one that lets it pass where others would capture it. A chain of one rule only carries out what the jump to
// it has decided.
func (way *Way) decide() {
	captures, passes := -1, -1
	for i, s := range way.Steps {
		if s.Rule == 0 || s.Missed != "" {
			continue
		}
		switch s.rule.Target.(type) {
		case redirect.Drop, redirect.RedirectTo, redirect.TProxyTo, TranslateTo:
			captures = i
		case redirect.Return:
			if s.Kind == redirect.NAT || s.Kind == redirect.Mangle {
				passes = i
			}
		}
	}
	switch {
	case captures >= 0:
		way.Steps[way.decider(captures)].Decides = true
	case passes >= 0:
		way.Steps[passes].Decides = true
	}
}

// decider goes back from what carries out to what has decided.
func (way *Way) decider(at int) int {
	for i := at - 1; i >= 0; i-- {
		s := way.Steps[i]
		if jump, is := s.rule.Target.(redirect.Jump); is && s.Missed == "" {
			if string(jump) == way.Steps[at].Chain && carriesOut[string(jump)] {
				return i
			}
			return at
		}
	}
	return at
}

// carriesOut are the chains that are jumped to for what they do.
var carriesOut = map[string]bool{
	"ISTIO_REDIRECT": true, "ISTIO_IN_REDIRECT": true, "ISTIO_TPROXY": true, "ISTIO_DIVERT": true, "ISTIO_DROP": true,
}
