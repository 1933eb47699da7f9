package plugin

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
)

// namespace is a pod's network namespace, and which one it is.
type namespace struct {
	netfilter.Namespace
	id record.NetNS
}

// openNamespace opens the network namespace at a path. The caller's own is refused.
func openNamespace(path string) (namespace, error) {
	opened, err := netfilter.Open(path)
	if err != nil {
		return namespace{}, err
	}
	n := namespace{Namespace: opened}
	err = opened.Within(func() (err error) {
		n.id, err = record.CurrentNetNS()
		return err
	})
	if err != nil {
		opened.Close()
	}
	return n, err
}

// openNetNS opens that of CNI_NETNS, and says so in an error.
func (p plugin) openNetNS(args *skel.CmdArgs) (namespace, error) {
	netns, err := p.open(args.Netns)
	if err != nil {
		return netns, fail(codeOf(err), "reading the environment",
			invalid.Text("CNI_NETNS", args.Netns, err.Error(), "the path of a pod's network namespace"))
	}
	return netns, nil
}
