package plugin

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/internal/excerpt"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Error codes beside those of the CNI specification (4 environment, 6 decoding, 7 configuration, 11 try again later,
// 50 plugin not available, 999 internal). docs/reference.md lists them for users.
const (
	codeAnnotation uint = 100 // a mesh pod has an annotation that cannot be read
	codeRules      uint = 101 // the packet rules could not be written
	codeNetNS      uint = 102 // CNI_NETNS is no network namespace of a pod
	codeRecord     uint = 103 // the record could not be written or read
	codeBackend    uint = 104 // no backend can work on this kernel and host
	codeDrift      uint = 105 // CHECK: the rules are not what ADD wrote
	codeNoRecord   uint = 106 // CHECK: ADD of this mesh pod never completed
)

// codeOf maps an error of the packages below to a code.
func codeOf(err error) uint {
	switch {
	case redirect.IsInvalid(err):
		return codeAnnotation
	case netfilter.IsNetNS(err), netfilter.IsGone(err):
		return codeNetNS
	case netfilter.IsUnusable(err):
		return codeBackend
	case netfilter.IsDrift(err):
		return codeDrift
	case record.IsVersion(err), netfilter.IsOfNode(err):
		return types.ErrTryAgainLater
	}
	return codeRules
}

// prefix starts every error's text: the kubelet shows it without saying which plugin of the chain it is from.
const prefix = "istio-pod-network: "

// fail makes a CNI error of err.
func fail(code uint, doing string, err error) *types.Error {
	return types.NewError(code, bounded(fmt.Sprintf(prefix+"%s: %v", doing, err)), "")
}

// takenBack returns the failure of an ADD, with what went wrong when its work was undone.
func takenBack(failure *types.Error, undo error) *types.Error {
	if undo != nil {
		failure.Details = bounded(fmt.Sprintf("taking back what was made: %v", undo))
	}
	return failure
}

// bounded shortens a text that repeats a huge value: what is wrong stands at its start, what is valid at its end, and
// an Event holds 1024 bytes.
func bounded(text string) string { return excerpt.Ends(text, 500, 300) }

// failed is fail with the code that the error itself asks for.
func failed(doing string, err error) *types.Error { return fail(codeOf(err), doing, err) }

// asCNI returns err as a CNI error.
func asCNI(err error) *types.Error {
	var cni *types.Error
	if errors.As(err, &cni) {
		return cni
	}
	return types.NewError(types.ErrInternal, bounded(prefix+err.Error()), "")
}
