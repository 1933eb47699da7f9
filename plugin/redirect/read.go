package redirect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// The functions below select what is read of a pod. Who stores or sends the facts of pods needs nothing else: a pod may
// have 256 KiB of annotations and 1 MiB of environment.

// presence are annotations that are read only for whether they exist.
var presence = []string{annotation.SidecarStatus, annotation.OpenShiftDeployer, annotation.OpenShiftBuild}

// words are annotations whose value is a single word.
var words = []string{annotation.SidecarInject, annotation.Initialize, annotation.AmbientRedirection}

// readArgs is how many arguments of the proxy container are read.
const readArgs = 2

// ReadAnnotations returns the annotations that decisions and settings read. Those that are read only for whether they
// exist have an empty value. Of all others with a prefix of Istio or of this controller, one is kept to stand for all.
func ReadAnnotations(all map[string]string) map[string]string {
	read := map[string]string{}
	keep := func(key string) {
		if value, present := all[key]; present {
			read[key] = value
		}
	}
	for _, key := range words {
		keep(key)
	}
	for _, s := range settings {
		for _, key := range s.annotations {
			keep(key)
		}
	}
	for _, key := range presence {
		if _, present := all[key]; present {
			read[key] = ""
		}
	}
	other := ""
	for key := range all {
		if _, known := read[key]; !known && ofMesh(key) && (other == "" || key < other) {
			other = key
		}
	}
	if other != "" {
		read[other] = ""
	}
	return read
}

// Canonical returns the canonical text of the value of a setting, read from the annotation or environment variable
// name. If keep is not nil, lists of groups have only those for which it is true. readable is false if name is not read
// by any setting, or the value is invalid.
func Canonical(name, value string, keep func(ID) bool) (text string, readable bool) {
	for _, s := range settings {
		if !s.readsFrom(name) {
			continue
		}
		var spec Spec
		if s.parse(&spec, value) != nil {
			return "", false
		}
		if keep != nil {
			spec.IncludeOutboundGroups = spec.IncludeOutboundGroups.among(keep)
			spec.ExcludeOutboundGroups = spec.ExcludeOutboundGroups.among(keep)
		}
		return fmt.Sprint(s.print(&spec)), true
	}
	return "", false
}

// readsFrom reports whether the setting is read from the annotation or environment variable.
func (s setting) readsFrom(name string) bool {
	return slices.Contains(s.annotations, name) || s.variable != "" && s.variable == name
}

// ReadLabels returns the labels that decisions read.
func ReadLabels(all map[string]string) map[string]string {
	value, present := all[annotation.SidecarInject]
	if !present {
		return nil
	}
	return map[string]string{annotation.SidecarInject: value}
}

// ReadsEnv reports whether the environment variable of the proxy container is read.
func ReadsEnv(name string) bool { return slices.Contains(ProxyVariables, name) }

// ReadArgs returns the arguments of the proxy container that decisions read.
func ReadArgs(all []string) []string { return slices.Clone(all[:min(len(all), readArgs)]) }

// ofMesh reports whether the annotation means its pod for the mesh.
func ofMesh(key string) bool {
	switch key {
	case annotation.SidecarStatus, annotation.SidecarInject, annotation.InterceptionMode, annotation.Initialize,
		annotation.AmbientRedirection, annotation.RerouteVirtualInterfaces:
		return true
	}
	return strings.HasPrefix(key, annotation.TrafficPrefix) || strings.HasPrefix(key, annotation.ControllerPrefix)
}
