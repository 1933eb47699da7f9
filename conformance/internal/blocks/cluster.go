package blocks

import "slices"

// OnCluster are the sections whose blocks the end-to-end tests paste, by page. They are pasted unchanged, except for a
// few names.
var OnCluster = map[string][]string{
	"README.md":       {"Install on a cluster"},
	"docs/cluster.md": {"Installing on a cluster", "Install with Helm", "Install manifests"},
	"docs/getting-started-istio.md": {"Choose the versions", "Install on Kubernetes", "Verify the mesh",
		"Call the shop through the gateway", "Try what must not work", "Change an Istio that is already installed",
		"Move to another revision of Istio", "Remove everything"},
	"docs/getting-started-openshift.md": {"Install"},
	"docs/one-machine.md":               {"Bring up a cluster"},
	"docs/operation.md": {"Check that it works", "Bring a running pod into the mesh", "Keep pods from a new node",
		"Upgrade", "Renew the rules of running pods"},
	"docs/uninstalling.md": {"Uninstall with Helm", "Uninstall what was applied as manifests", "What stays on a node",
		"Remove a plugin that was left behind"},
}

// PastedOnCluster reports whether an end-to-end test pastes a block of a page.
func PastedOnCluster(page string, b Block) bool {
	return b.NotOnCluster == "" && slices.Contains(OnCluster[page], b.Section)
}

// Unexplained reports whether a block needs a cluster, but no end-to-end test pastes it and the page does not say why.
func Unexplained(page string, b Block) bool {
	return NeedsCluster(b) && !PastedOnCluster(page, b) && b.NotOnCluster+b.RunBy+b.NotRun == "" && len(b.StandIns) == 0
}

// NeedsCluster reports whether a block calls a program that talks to a cluster.
func NeedsCluster(b Block) bool {
	file, err := Parse(b.Place, b.Text)
	return err == nil && slices.ContainsFunc(Programs(file), asksCluster.MatchString)
}
