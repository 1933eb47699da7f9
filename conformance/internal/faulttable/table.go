package faulttable

// Remedies that several findings have.
const (
	makeAgain = "Make it again: kubectl -n"
	agentsLog = "kubectl -n istio-pod-network-controller logs istio-pod-network-agent-"
	describe  = "kubectl -n istio-pod-network-controller describe daemonset istio-pod-network-agent"
	readOnly  = "read-only file system"
)

// Table has all faults.
var Table = []Fault{
	{"the plugin's binary is removed, and its directory is read-only", []Finding{
		{"status", 1, "installed: installing the binary: writing \"/opt/cni/bin/istio-pod-network\"", agentsLog},
		{"check", 1, readOnly, agentsLog},
		{"version", 1, "the node has no plugin", "the agent puts its own there, and says in its log why it has not"},
	}},
	{"the plugin's entry is removed, and its directory is read-only", []Finding{
		{"status", 1, "installed: writing \"/etc/cni/net.d/podnet/99-istio-pod-network.conf\"", agentsLog},
		{"check", 1, readOnly, agentsLog},
	}},
	{"the primary's configuration is in another directory", []Finding{
		{"status", 1, "waiting: no primary network configuration yet in /etc/cni/net.d", agentsLog},
		{"check", 1, "waiting: no primary network configuration yet in /etc/cni/net.d", agentsLog},
	}},
	{"a rule is deleted in a pod", []Finding{
		{"explain", 1, "its rules are not those that should be there", "Find out who changes rules in the pod's network."},
	}},
	{"the agent is away, and a pod came", []Finding{
		{"status", 1, "no agent runs here", describe},
		{"explain", 1, "nobody listens on the socket", "The kubelet tries it again."},
		{"check", 1, "enforces Pod Security restricted, which refuses the agents", "kubectl label --overwrite namespace"},
		{"version", 3, "no agent runs here", describe},
	}},
	{"the admission policies' bindings are missing", []Finding{
		{"check", 1, "the binding of the ValidatingAdmissionPolicy istio-pod-network-marks is missing", "helm upgrade"},
	}},
	{"a mark is pasted on a pod that runs, without the policies", []Finding{
		{"explain", 1, "it carries a mark, and no record on its node says so", "take the marks out of the pod's template"},
		{"check", 1, "the binding of the ValidatingAdmissionPolicy istio-pod-network-marks is missing", "helm upgrade"},
	}},
	{"a pod opted in, and has no proxy", []Finding{
		{"explain", 1, "it is meant for the mesh and has no sidecar", "let Istio inject it"},
	}},
	{"an annotation cannot be read", []Finding{
		{"explain", 1, "it is refused", "Correct"},
	}},
	{"another mesh's plugin wrote its rules first", []Finding{
		{"explain", 1, "it was left untouched when its network was made (foreign-rules)", makeAgain},
	}},
	{"a pod opted in after it was made", []Finding{
		{"explain", 1, "it is outside the mesh", makeAgain},
	}},
	{"a pod was labelled for injection after it was made", []Finding{
		{"explain", 1, "it has no sidecar, although the webhook", makeAgain},
	}},
}
