package cluster

// What the chart's objects are known by, whatever its release is called.
const (
	OfChart     = "app.kubernetes.io/part-of=istio-pod-network-controller" // selects them all
	SettingsMap = "istio-pod-network-config"                               // the ConfigMap with the plugin's entry
	SettingsKey = "network.json"                                           // by which that has it
	OfAgents    = "app.kubernetes.io/name=istio-pod-network-agent"         // selects the agents' pods and their DaemonSet
)

// InjectorMap is the name of the ConfigMap with the settings of Istio's injector of a revision, "" for the default one.
func InjectorMap(revision string) string {
	if revision == "" || revision == "default" {
		return "istio-sidecar-injector"
	}
	return "istio-sidecar-injector-" + revision
}
