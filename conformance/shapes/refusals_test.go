package shapes

import "fmt"

// refusal is what is reported about a node that is not ready. {dir}, {bin} and {conf} stand for directories of the
// node, and * for a text that differs each time.
type refusal struct {
	status    string // what status says is missing
	readiness string // what readiness says of the installation; "" for "not ready" and the same text
	ends      string // the error with which the agent ends instead, as the installer does
}

// notChained is the refusal of a network into which nothing can be chained.
func notChained(file, why, remedy string) *refusal {
	return &refusal{
		readiness: fmt.Sprintf(`chaining into "{conf}/%s": %s;  remedy: %s`, file, why, remedy),
		status:    why + "; remedy: " + remedy + "; {conf}/" + file + " is without our entry",
	}
}

// What status says if only the installation itself knows the reason.
const (
	withoutEntry = "{conf}/10-net.conflist is without our entry"
	notInstalled = "the plugin is not installed as {bin}/istio-pod-network; " + withoutEntry
)

const (
	dangling = `the first configuration is a link whose target is not there: "{conf}/10-net.conflist" leads to ` +
		`"{dir}/usr/share/cni/10-net.conflist": lstat {dir}/usr/share/cni/10-net.conflist: no such file or directory`
	danglingRemedy = "mount the directory of the target into the container, at the same path; or remove the link, if " +
		"the runtime does not find its target either"
	readOnlyRemedy = "mount that directory writable into this container, or choose another with --bin-dir or --conf-dir"
)

var (
	versionToCome = notChained("10-net.conflist",
		`the plugin does not speak the version of that network: "1.2.0"; "{bin}/istio-pod-network" speaks `+
			`0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0`,
		"install a release of the plugin that speaks it; until then nothing is chained, and pods start as without the plugin")
	elsewhere = notChained("10-flannel.conflist",
		"the runtime looks for plugins elsewhere: none of the network's own plugins (bridge, host-local) is in {bin}",
		"set --bin-dir (cni.binDir of the chart) to the directory in which the runtime looks for plugins; where it looks "+
			"in several, name the others with --runtime-bin-dir (cni.runtimeBinDirs)")
	mountedNoexec = notChained("10-net.conflist",
		`it cannot be run where it was installed: running the plugin "{bin}/istio-pod-network": fork/exec `+
			`{bin}/istio-pod-network: permission denied`,
		"the directory may be mounted noexec: mount it without, or set --bin-dir (cni.binDir of the chart) to another in "+
			"which the runtime looks for plugins")
	noneOfThatName = &refusal{status: `waiting: no primary network configuration yet: none has the name "missing", ` +
		"nor has its file in {conf}"}
	otherMachine = &refusal{status: notInstalled,
		ends: `running the plugin "{dir}/plugin": fork/exec {dir}/plugin: exec format error`}
	danglingLink = &refusal{status: dangling + "; remedy: " + danglingRemedy,
		readiness: dangling + ";  remedy: " + danglingRemedy}
	readOnlyBin = &refusal{status: notInstalled,
		readiness: `installing the binary: writing "{bin}/istio-pod-network": remove {bin}/.istio-pod-network-tmp.*: ` +
			"read-only file system;  remedy: " + readOnlyRemedy}
	readOnlyConf = &refusal{status: withoutEntry,
		readiness: `chaining into "{conf}/10-net.conflist": remove {conf}/.istio-pod-network-swap.*: ` +
			"read-only file system;  remedy: " + readOnlyRemedy}
	fullBin = &refusal{status: notInstalled,
		readiness: `installing the binary: writing "{bin}/istio-pod-network": write {bin}/.istio-pod-network-tmp.*: ` +
			"no space left on device;  remedy: free some space on that file system; nothing was changed"}
)
