package plugin

import (
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/internal/invalid"
)

// refused completes a call that skel refused before any verb ran: it logs the line and adds to the error what is valid.
// Errors of the verbs pass unchanged. A DEL with an invalid configuration succeeds: it could never be corrected, and
// the pod would never go away. The agent drops its record once the sandbox is gone.
func (p plugin) refused(err *types.Error, getenv func(string) string) *types.Error {
	if err == nil || strings.HasPrefix(err.Msg, prefix) {
		return err
	}
	c := p.newCall(getenv("CNI_COMMAND"), &skel.CmdArgs{ContainerID: getenv("CNI_CONTAINERID"),
		IfName: getenv("CNI_IFNAME")})
	explained := explain(err, getenv)
	if c.verb == "DEL" && err.Code != types.ErrInvalidEnvironmentVariables {
		c.warn("the configuration is invalid; nothing removed", explained)
		_ = c.finish(nil)
		return nil
	}
	return asCNI(c.finish(explained))
}

// explain adds to an error of skel the key, the value and what is valid.
func explain(err *types.Error, getenv func(string) string) *types.Error {
	what := err.Error()
	switch err.Code {
	case types.ErrIncompatibleCNIVersion:
		what = fmt.Sprintf("cniVersion: %s; valid: %s", what, strings.Join(supported.SupportedVersions(), ", "))
	case types.ErrInvalidNetworkConfig:
		what = fmt.Sprintf("name: %s; valid: letters, digits and _.-, the first a letter or digit", what)
	case types.ErrDecodingFailure:
		what = fmt.Sprintf("network configuration: %s; valid: a JSON object with the strings cniVersion, name and type", what)
	case types.ErrInvalidEnvironmentVariables:
		what = explainVariable(err, getenv)
	}
	return types.NewError(err.Code, bounded(prefix+what), "")
}

// explainVariable does so for environment variables. Only the text of skel's error tells which variable it is about.
func explainVariable(err *types.Error, getenv func(string) string) string {
	name, valid := "", ""
	switch {
	case strings.Contains(err.Msg, "CNI_COMMAND"):
		name, valid = "CNI_COMMAND", "ADD, CHECK, DEL, GC, STATUS or VERSION"
	case strings.Contains(err.Msg, "containerID"):
		name, valid = "CNI_CONTAINERID", "letters, digits and _.-, the first a letter or digit"
	case strings.Contains(err.Msg, "interface name"):
		name, valid = "CNI_IFNAME", "at most 15 bytes without /, : and white space"
	default:
		return err.Error() // it names the missing variables
	}
	return invalid.Text(name, getenv(name), err.Msg, valid).Error()
}
