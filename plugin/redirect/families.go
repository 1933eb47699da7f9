package redirect

import (
	"fmt"

	"github.com/istio-pod-network/controller/internal/invalid"
)

// Captured says which IP families are captured, in and out.
type Captured string

// What is captured. Of an operator the first two are taken; a record has what they came to.
const (
	CapturedAll   Captured = "all"   // both, whatever addresses the pod has
	CapturedProxy Captured = "proxy" // those that the sidecar listens in; as long as they are not known, both
	CapturedIPv4  Captured = "IPv4"
	CapturedIPv6  Captured = "IPv6"
)

// ParseCaptured reads what a record may hold.
func ParseCaptured(text string) (Captured, error) {
	switch c := Captured(text); c {
	case CapturedAll, CapturedProxy, CapturedIPv4, CapturedIPv6:
		return c, nil
	}
	return "", fmt.Errorf("unknown choice")
}

// checkFamilies refuses what only a record may hold: it would leave a pod of the other family alone without a capture.
func (s Spec) checkFamilies() error {
	if s.Families == CapturedAll || s.Families == CapturedProxy {
		return nil
	}
	return invalid.Text("redirect.families", string(s.Families), "one alone is for a pod's addresses to say",
		validFamilies)
}

// Of lists the families that are captured, in the order of Families.
func (c Captured) Of() []Family {
	switch c {
	case CapturedIPv4:
		return []Family{IPv4}
	case CapturedIPv6:
		return []Family{IPv6}
	}
	return Families
}

// One returns the one family that is captured alone, else "".
func (c Captured) One() string {
	if len(c.Of()) == 1 {
		return string(c)
	}
	return ""
}

// ForAddresses returns the settings of a pod that has addresses of these families. A sidecar that is not told to listen
// in both listens in IPv4 wherever the pod has an address of it, whichever is the first, else in IPv6. Where the pod
// has no address yet, nothing is known. Source: wildCards and getActualWildcardAndLocalHost in istio/istio
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
