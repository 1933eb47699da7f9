package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/internal/testnet"
	"golang.org/x/sys/unix"
)

// Names and paths on the demo's node. Its /run is private, so the plugin's defaults can be used.
const (
	network  = "demo"
	confPath = "/run/cni/10-demo.conflist"
	stateDir = "/run/istio-pod-network"

	netnsDir  = "/run/netns" // the directory of `ip netns exec`
	podNetns  = netnsDir + "/pod"
	nodeNetns = netnsDir + "/node"
)

// prepareNode creates the directories. Temporary files are below /run, too.
func prepareNode() error {
	for _, dir := range []string{filepath.Dir(confPath), netnsDir, "/run/tmp"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return os.Setenv("TMPDIR", "/run/tmp")
}

// newLab makes the network namespaces of the pod and its node, with the stand-ins in them. It removes the lab's own
// links out of the pod: the CNI chain makes eth0 with the same addresses.
func newLab(families []testnet.Family) (*testnet.Lab, error) {
	lab, err := testnet.New(testnet.Options{Families: families})
	if err != nil {
		return nil, err
	}
	for name, path := range map[string]string{podNetns: lab.Path, nodeNetns: lab.PeerPath} {
		if err := bind(path, name); err != nil {
			return lab, err
		}
	}
	for _, link := range []string{"eth0", "net1"} {
		if _, err := inPod("ip", "link", "delete", link); err != nil {
			return lab, err
		}
	}
	return lab, nil
}

// bind gives a network namespace a second path.
func bind(from, to string) error {
	if err := os.WriteFile(to, nil, 0o444); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %q on %q: %w", from, to, err)
	}
	return nil
}

// object is a JSON object in its written form, so that its keys keep their order.
type object = json.RawMessage

// conflist returns the two plugins of the node's CNI configuration: a bridge with fixed addresses, and ours.
func conflist(opts options) (bridge, plugin object) {
	ranges := ""
	for i, family := range opts.families {
		subnet := map[testnet.Family]string{testnet.IPv4: "10.88.0.0/24", testnet.IPv6: "fd88::/64"}[family]
		pod, gateway := testnet.Pod.Addr(family), testnet.Peer.Addr(family)
		if i > 0 {
			ranges += ", "
		}
		ranges += fmt.Sprintf(`[{"subnet": %q, "rangeStart": %q, "rangeEnd": %[2]q, "gateway": %q}]`, subnet, pod, gateway)
	}
	bridge = object(`{"type": "bridge", "bridge": "demo0", "isDefaultGateway": true, "ipMasq": false, "ipam": ` +
		`{"type": "host-local", "ranges": [` + ranges + `]}}`)
	redirect := fmt.Sprintf(`{"mode": %q, "dnsCapture": %t}`, opts.mode, opts.dns)
	plugin = object(`{"type": "istio-pod-network", "capabilities": {"` + annotations + `": true}, "agentSocket": "", ` +
		`"backend": "` + opts.backend + `", "redirect": ` + redirect + `}`)
	return bridge, plugin
}

func writeConflist(bridge, plugin object) error {
	list := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "plugins": [%s, %s]}`, network, bridge, plugin)
	return os.WriteFile(confPath, []byte(list), 0o644)
}
