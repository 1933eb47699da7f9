package redirect

import (
	"errors"

	"github.com/istio-pod-network/controller/internal/invalid"
)

// IsInvalid reports whether err says that a setting of the pod or of the configuration is invalid.
func IsInvalid(err error) bool { return invalid.Is(err) || errors.As(err, new(*SharedUserError)) }
