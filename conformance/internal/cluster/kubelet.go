package cluster

import (
	"fmt"
	"os"
	"path/filepath"
)

// Kubelet starts the kubelet, which authenticates as this node.
func (n *Node) Kubelet() error {
	config := n.cluster.path(n.Name + "-kubelet.kubeconfig")
	if err := n.cluster.Server.KubeconfigOf(config, "system:node:"+n.Name, "system:nodes"); err != nil {
		return err
	}
	resolv := n.cluster.path("resolv.conf")
	settings := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %q}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /%s
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://%s
imageServiceEndpoint: unix://%s
staticPodPath: %q
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
enforceNodeAllocatable: []
maxPods: %d
registryPullQPS: 0
featureGates: {KubeletCrashLoopBackOffMax: true}
crashLoopBackOff: {maxContainerRestartPeriod: 2s} # agents are killed again and again
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
clusterDNS: [%s]
clusterDomain: cluster.local
resolvConf: %q
`, n.cluster.Server.CA(), group()+"/"+n.Name, socket, socket, StaticDir, MostNodePods+everyNodes,
		dnsAddress, resolv)
	file := n.cluster.path(n.Name + "-kubelet.yaml")
	for path, contents := range map[string]string{file: settings, resolv: "nameserver " + dnsAddress + "\n"} {
		if err := os.WriteFile(path, []byte(contents), 0o644); err != nil {
			return err
		}
	}
	return n.run("kubelet", filepath.Join(n.cluster.Bin, "kubelet"), "--config="+file, "--kubeconfig="+config,
		"--root-dir=/var/lib/kubelet",
		"--hostname-override="+n.Name, "--node-ip="+n.Address()+","+n.Address6(), "--cert-dir=/var/lib/kubelet/pki")
}

// proxy starts kube-proxy. Without it no pod reaches a service, and the agent does not reach the API server.
func (n *Node) proxy() error {
	config := n.cluster.path(n.Name + "-kube-proxy.kubeconfig")
	if err := n.cluster.Server.KubeconfigOf(config, "system:kube-proxy", "system:node-proxier"); err != nil {
		return err
	}
	settings := fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %q
clientConnection: {kubeconfig: %q}
clusterCIDR: 10.244.0.0/16,fd00:244::/32
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, n.Name, config)
	file := n.cluster.path(n.Name + "-kube-proxy.yaml")
	if err := os.WriteFile(file, []byte(settings), 0o644); err != nil {
		return err
	}
	return n.run("kube-proxy", filepath.Join(n.cluster.Bin, "kube-proxy"), "--config="+file)
}
