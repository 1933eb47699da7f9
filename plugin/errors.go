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

// Error codes of this plugin. It also returns codes of the CNI specification (4 environment, 6 decoding, 7
// configuration, 11 try again later, 50 plugin not available, 999 internal). docs/reference.md lists all of them.
const (
	codeAnnotation uint = 100 // an annotation of a mesh pod is invalid
	codeRules      uint = 101 // the packet rules could not be written
	codeNetNS      uint = 102 // CNI_NETNS is not a pod's network namespace
	codeRecord     uint = 103 // the record could not be written or read
	codeBackend    uint = 104 // no backend works on this node
	codeDrift      uint = 105 // CHECK: the rules are not those that ADD wrote
	codeNoRecord   uint = 106 // CHECK: ADD of this mesh pod never completed
)

// codeOf returns the CNI error code for an error of the packages below.
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

// prefix starts the text of every error: the kubelet shows the text without the name of the plugin that failed.
const prefix = "istio-pod-network: "

// fail wraps err in a CNI error with the code. doing says what the plugin was doing.
func fail(code uint, doing string, err error) *types.Error {
	return types.NewError(code, bounded(fmt.Sprintf(prefix+"%s: %v", doing, err)), "")
}

// takenBack returns the error of an ADD, and adds the error of its undo if there is one.
func takenBack(failure *types.Error, undo error) *types.Error {
	if undo != nil {
		failure.Details = bounded(fmt.Sprintf("taking back what was made: %v", undo))
	}
	return failure
}

// bounded shortens a text that contains a huge value. It keeps the start, which says what is wrong, and the end, which
// says what is valid. An Event holds 1024 bytes.
func bounded(text string) string { return excerpt.Ends(text, 500, 300) }

// failed is fail with the code that codeOf finds for err.
func failed(doing string, err error) *types.Error { return fail(codeOf(err), doing, err) }

// asCNI returns err as a CNI error; any other error gets code 999 (internal).
func asCNI(err error) *types.Error {
	var cni *types.Error
	if errors.As(err, &cni) {
		return cni
	}
	return types.NewError(types.ErrInternal, bounded(prefix+err.Error()), "")
}
