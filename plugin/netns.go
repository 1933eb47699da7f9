package plugin

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
)

// namespace is an open network namespace and its identity.
type namespace struct {
	netfilter.Namespace
	id record.NetNS
}

// openNamespace opens the network namespace at the path. It returns an error for the caller's own one.
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

// openNetNS opens the network namespace that CNI_NETNS names. The error is a CNI error that names the variable.
func (p plugin) openNetNS(args *skel.CmdArgs) (namespace, error) {
	netns, err := p.open(args.Netns)
	if err != nil {
		return netns, fail(codeOf(err), "reading the environment",
			invalid.Text("CNI_NETNS", args.Netns, err.Error(), "the path of a pod's network namespace"))
	}
	return netns, nil
}
