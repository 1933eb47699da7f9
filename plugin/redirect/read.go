package redirect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// What of a pod is read. Whoever keeps or sends facts of pods needs nothing else of them: a pod may have 256 KiB of
// annotations and 1 MiB of environment.

// presence are annotations of which only matters that they are there.
var presence = []string{annotation.SidecarStatus, annotation.OpenShiftDeployer, annotation.OpenShiftBuild}

// words are annotations whose value is one word.
var words = []string{annotation.SidecarInject, annotation.Initialize, annotation.AmbientRedirection}

// readArgs is how many of the proxy's arguments are read.
const readArgs = 2

// ReadAnnotations returns of a pod's annotations what a decision or a setting is read from. The value of one that is
// only looked for is empty. Of those that are known by their prefix alone, one stands for all.
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

// Canonical returns the one text of a setting that an annotation or a variable of the proxy gives. Of a list of groups
// only those are in it of which keep is true; nil keeps all. What is no setting, or cannot be read, is not readable.
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

// readsFrom reports whether the setting is read from that annotation or variable.
func (s setting) readsFrom(name string) bool {
	return slices.Contains(s.annotations, name) || s.variable != "" && s.variable == name
}

// ReadLabels returns what is read of a pod's labels.
func ReadLabels(all map[string]string) map[string]string {
	value, present := all[annotation.SidecarInject]
	if !present {
		return nil
	}
	return map[string]string{annotation.SidecarInject: value}
}

// ReadsEnv reports whether that variable of the proxy container is read.
func ReadsEnv(name string) bool { return slices.Contains(ProxyVariables, name) }

// ReadArgs returns what is read of the proxy container's arguments.
func ReadArgs(all []string) []string { return slices.Clone(all[:min(len(all), readArgs)]) }

// ofMesh reports whether somebody who annotates a pod so means it for the mesh.
func ofMesh(key string) bool {
	switch key {
	case annotation.SidecarStatus, annotation.SidecarInject, annotation.InterceptionMode, annotation.Initialize,
		annotation.AmbientRedirection, annotation.RerouteVirtualInterfaces:
		return true
	}
	return strings.HasPrefix(key, annotation.TrafficPrefix) || strings.HasPrefix(key, annotation.ControllerPrefix)
}
