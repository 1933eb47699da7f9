package cluster

// Names and labels of the chart's objects. They do not depend on the release's name.
const (
	OfChart     = "app.kubernetes.io/part-of=istio-pod-network-controller" // selects all of them
	SettingsMap = "istio-pod-network-config"                               // the ConfigMap with the plugin's entry
	SettingsKey = "network.json"                                           // the key of the entry in it
	OfAgents    = "app.kubernetes.io/name=istio-pod-network-agent"         // selects the agents' pods and their DaemonSet
)

// InjectorMap returns the name of the ConfigMap with the settings of Istio's injector of a revision, "" for the default
// one.
func InjectorMap(revision string) string {
	if revision == "" || revision == "default" {
		return "istio-sidecar-injector"
	}
	return "istio-sidecar-injector-" + revision
}
