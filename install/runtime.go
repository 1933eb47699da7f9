package install

import (
	"strconv"
	"strings"
)

// dropInSince maps a container runtime to its first minor version with libcni 1.3 or later, which reads
// <confDir>/<network>/*.conf: containerd 2.1 (go-cni 1.1.12), CRI-O 1.33 (ocicni with libcni 1.3.0).
var dropInSince = map[string][2]int{"containerd": {2, 1}, "cri-o": {1, 33}}

// readsDropIns reports whether a runtime is known to read drop-ins. The version has the form of a node's
// status.nodeInfo.containerRuntimeVersion, such as "containerd://2.1.4". A pre-release of the first such version does
// not count.
func readsDropIns(version string) bool {
	name, version, _ := strings.Cut(version, "://")
	since, known := dropInSince[name]
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if !known || len(parts) < 3 {
		return false
	}
	major, err := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	if err != nil || err2 != nil || major < since[0] || major == since[0] && minor < since[1] {
		return false
	}
	first := major == since[0] && minor == since[1]
	for _, pre := range []string{"-alpha", "-beta", "-rc"} {
		if first && strings.HasPrefix(parts[2], "0"+pre) {
			return false
		}
	}
	return true
}
