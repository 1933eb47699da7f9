package redirect

import (
	"fmt"

	"github.com/istio-pod-network/controller/internal/invalid"
)

// Captured says in which IP families traffic is captured, inbound and outbound.
type Captured string

// Values of Captured. A configuration has one of the first two. A record has all, IPv4 or IPv6.
const (
	CapturedAll   Captured = "all"   // both, whatever addresses the pod has
	CapturedProxy Captured = "proxy" // those in which the sidecar listens; both until that is known
	CapturedIPv4  Captured = "IPv4"
	CapturedIPv6  Captured = "IPv6"
)

// ParseCaptured parses any of the values, because a record may have each of them.
func ParseCaptured(text string) (Captured, error) {
	switch c := Captured(text); c {
	case CapturedAll, CapturedProxy, CapturedIPv4, CapturedIPv6:
		return c, nil
	}
	return "", fmt.Errorf("unknown choice")
}

// checkFamilies returns an error for a value that only a record may have. In a configuration it would leave pods with
// addresses of the other family uncaptured.
func (s Spec) checkFamilies() error {
	if s.Families == CapturedAll || s.Families == CapturedProxy {
		return nil
	}
	return invalid.Text("redirect.families", string(s.Families), "one alone is for a pod's addresses to say",
		validFamilies)
}

// Of returns the captured families, in the order of Families.
func (c Captured) Of() []Family {
	switch c {
	case CapturedIPv4:
		return []Family{IPv4}
	case CapturedIPv6:
		return []Family{IPv6}
	}
	return Families
}

// One returns the captured family if it is only one, and "" otherwise.
func (c Captured) One() string {
	if len(c.Of()) == 1 {
		return string(c)
	}
	return ""
}

// ForAddresses returns the settings for a pod with addresses of these families. A sidecar without dual stack listens in
// IPv4 if the pod has an IPv4 address, in any position, and in IPv6 otherwise. Without addresses both families are
// captured. Source: wildCards and getActualWildcardAndLocalHost in istio/istio
// pilot/pkg/networking/core/listener_address.go, DiscoverIPMode in pkg/model/proxy.go.
func (s Spec) ForAddresses(has []Family) Spec {
	if s.Families != CapturedProxy {
		return s
	}
	s.Families = CapturedAll
	for _, family := range has {
		if family == IPv4 {
			s.Families = CapturedIPv4
			break
		}
		s.Families = CapturedIPv6
	}
	return s
}
