package faulttable

// Next steps that several findings have.
const (
	makeAgain = "Make it again: kubectl -n"
	agentsLog = "kubectl -n istio-pod-network-controller logs istio-pod-network-agent-"
	describe  = "kubectl -n istio-pod-network-controller describe daemonset istio-pod-network-agent"
	readOnly  = "read-only file system"

	statusSays = "istio-pod-networkctl status says how the plugin is installed there" // a next step of verify

	ofNetwork = "/hurt says what became of the pod's network" // also of trace --live
	ofRules   = "/hurt says whether the pod has the rules that it should have"
	noRecord  = "there is no record of the pod, so nobody knows its network" // a warning of trace --live
)

// notInstalled is the alert for nodes on which mesh pods cannot start.
const notInstalled = "IstioPodNetworkNotInstalled"

// Table has all faults.
var Table = []Fault{
	{"the plugin's binary is removed, and its directory is read-only", EndToEnd, []Finding{
		{"status", 1, "installed: installing the binary: writing \"/opt/cni/bin/istio-pod-network\"", agentsLog},
		{"check", 1, readOnly, agentsLog},
		{"version", 1, "the node has no plugin", "the agent puts its own there, and says in its log why it has not"},
	}, []string{notInstalled}},
	{"the plugin's entry is removed, and its directory is read-only", EndToEnd, []Finding{
		{"status", 1, "installed: writing \"/etc/cni/net.d/podnet/99-istio-pod-network.conf\"", agentsLog},
		{"check", 1, readOnly, agentsLog},
	}, []string{notInstalled}},
	{"a pod came while the plugin's entry was away", EndToEnd, []Finding{
		{"status", 1, "/hurt: without rules, for the plugin was not run", "each of these pods again: kubectl -n"},
		{"explain", 1, "it bypasses the mesh: its network was made without the plugin", makeAgain},
		{"check", 1, "/hurt: without rules, for the plugin was not run", "each of these pods again: kubectl -n"},
		{live, 0, noRecord, ofNetwork},
	}, []string{"IstioPodNetworkBypass", notInstalled}},
	{"the primary's configuration is in another directory", EndToEnd, []Finding{
		{"status", 1, "waiting: no primary network configuration yet in /etc/cni/net.d",
			"the value cni.confDir is not where the runtime reads it"},
		{"check", 1, "waiting: no primary network configuration yet in /etc/cni/net.d",
			"the value cni.confDir is not where the runtime reads it"},
	}, []string{notInstalled}},
	{"a rule is deleted in a pod", EndToEnd, []Finding{
		{"explain", 1, "its rules are not those that should be there", "Find out who changes rules in the pod's network."},
		{live, 1, "the kernel passes over filter-istio-guard-out, rule", ofRules},
	}, nil},
	{"the agent is away, and a pod came", EndToEnd, []Finding{
		{"status", 1, "no agent runs here", describe},
		{"explain", 1, "nobody listens on the socket", "The kubelet tries it again."},
		{"explain", 3, "its record and its rules could not be asked for", "says why no agent runs there"},
		{"check", 1, "enforces Pod Security restricted, which refuses the agents", "kubectl label --overwrite namespace"},
		{"version", 3, "no agent runs here", describe},
		{live, 3, "no agent runs on node-", "says why no agent runs there"},
		{sysdump, 1, "no agent runs there", "says why no agent runs there"},
	}, []string{"IstioPodNetworkAgentMissing"}},
	{"the admission policies' bindings are missing", EndToEnd, []Finding{
		{"check", 1, "the binding of the ValidatingAdmissionPolicy istio-pod-network-marks is missing", "helm upgrade"},
	}, nil},
	{"a mark is pasted on a pod that runs, without the policies", EndToEnd, []Finding{
		{"explain", 1, "it carries a mark, and no record on its node says so", "take the marks out of the pod's template"},
		{"check", 1, "the binding of the ValidatingAdmissionPolicy istio-pod-network-marks is missing", "helm upgrade"},
		{live, 0, noRecord, ofNetwork},
	}, nil},
	{"a pod opted in, and has no proxy", EndToEnd, []Finding{
		{"explain", 1, "it is meant for the mesh and has no sidecar", "let Istio inject it"},
	}, nil},
	{"an annotation cannot be read", EndToEnd, []Finding{
		{"explain", 1, "it is refused", "Correct"},
		{"trace", 1, "invalid value \"80;\"", "Correct it"},
		{live, 1, "invalid value \"80;\"", "Correct it"},
	}, nil},
	{"another mesh's plugin wrote its rules first", EndToEnd, []Finding{
		{"explain", 1, "it was left untouched when its network was made (foreign-rules)", makeAgain},
		{live, 1, "the kernel does not come to nat-istio-output, rule", ofRules},
	}, nil},
	{"a pod opted in after it was made", EndToEnd, []Finding{
		{"explain", 1, "it is outside the mesh", makeAgain},
		{"check", 0, "pods without rules that would have some if they were made now: ",
			"if it is to be in the mesh: kubectl -n"},
		{live, 0, noRecord, ofNetwork},
	}, nil},
	{"a pod was labelled for injection after it was made", EndToEnd, []Finding{
		{"explain", 1, "it has no sidecar, although the webhook", makeAgain},
		{live, 0, noRecord, ofNetwork},
	}, nil},
	{"the plugin's binary was another's, a pod came, and libcni's cache of it is lost", EndToEnd, []Finding{
		{"status", 1, ": without rules, for the plugin was not run",
			"or have the agent do so (value repair=apply or delete)"},
		{"explain", 1, "it bypasses the mesh: its network was made without the plugin", makeAgain},
		{"check", 1, ": without rules, for the plugin was not run", "or have the agent do so (value repair=apply or delete)"},
		{live, 0, noRecord, ofNetwork},
	}, []string{"IstioPodNetworkBypass"}},
	{"the kernel has no nf_tables, and the value backend is nftables", Kernels, []Finding{
		{"status", 1, "backend: backend nftables is not usable: the kernel has no nf_tables",
			"load the kernel's modules (modprobe nf_tables nft_ct nft_redir nft_chain_nat)"},
		{"explain", 1, "backend nftables is not usable: the kernel has no nf_tables", "The kubelet tries it again."},
		{"check", 1, "backend nftables is not usable: the kernel has no nf_tables", "load the kernel's modules"},
	}, nil},
	{"the plugin's entry is removed, its directory is read-only, and the value repair is off", Proving, []Finding{
		{Verify, 1, "annotation pod-network-controller.istio.io/status is absent", statusSays},
	}, nil},
	{"the agent is away", Proving, []Finding{{Verify, 1, "nobody listens on the socket", statusSays}}, nil},
	{"Istio's CNI is on the nodes, too", Compare, []Finding{
		{"status", 0, "Istio's own CNI is in the network of its pods, too: the plugin istio-cni", "then uninstall it"},
		{"explain", 1, "it was left untouched when its network was made (foreign-rules)", makeAgain},
		{"check", 0, "Istio's own CNI is there: DaemonSet istio-cni/istio-cni-node", "then uninstall it"},
	}, nil},
}
