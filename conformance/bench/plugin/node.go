package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Directories of the node. They are on a tmpfs, as on a real one.
const (
	stateDir = "/run/bench"
	netnsDir = "/run/netns"
	socket   = stateDir + "/agent.sock"
)

// node stands for a Kubernetes node: binaries, a state directory, and an agent that answers the plugin's questions.
type node struct {
	bin    string
	pods   int  // number of pods made so far, for their names
	verify bool // whether a mesh ADD must leave a record and a DEL must remove it
}

func (n *node) binary(name string) string { return filepath.Join(n.bin, name) }

// newNode sets up the node in the namespaces of this process.
func newNode(bin string) (*node, error) {
	for _, dir := range []string{stateDir, netnsDir} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	return &node{bin: bin}, serveFacts()
}

// verified returns an error if the call did not do its work: a plugin that does nothing is fast.
func (n *node) verified(s spec, p pod) error {
	if !n.verify || !s.mesh || s.verb == check {
		return nil
	}
	path := filepath.Join(stateDir, "pods", p.id+"-eth0.json")
	_, err := os.Stat(path)
	if exists := err == nil; exists != (s.verb == add) {
		return fmt.Errorf("after %s, record %q: exists is %t", s.verb, path, exists)
	}
	return nil
}

// pod is one sandbox: a network namespace and the IDs that a runtime would give it.
type pod struct {
	id    string // container ID
	netns string // path
}

// newPod makes a network namespace with lo and a dual-stack eth0, both up. It is pinned until the process ends.
func (n *node) newPod() (pod, error) {
	n.pods++
	p := pod{id: fmt.Sprintf("%064x", n.pods), netns: filepath.Join(netnsDir, fmt.Sprint(n.pods))}
	err := isolated.NewNetNS(p.netns)
	if err == nil {
		err = isolated.InNetNS(p.netns, addLinks)
	}
	if err != nil {
		return p, fmt.Errorf("making pod %q: %w", p.netns, err)
	}
	return p, nil
}

// addLinks makes a dual-stack eth0 in the network namespace of the calling thread.
func addLinks() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "peer0"}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	for _, cidr := range []string{"10.88.0.2/24", "fd00:88::2/64"} {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(veth, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(veth)
}

// serveFacts answers every question with the same mesh pod, from memory, as an agent with the pod in its cache.
func serveFacts() error {
	listener, err := facts.Listen(socket)
	if err != nil {
		return err
	}
	go func() { _ = facts.Serve(listener, answer) }() // until the process ends
	return nil
}

func answer(_ context.Context, req facts.Request) facts.Response {
	uid := int64(1337)
	return facts.Response{Pod: &redirect.Pod{
		Namespace: req.Namespace, Name: req.Name, UID: req.UID, Complete: true,
		Annotations: meshAnnotations, Labels: map[string]string{"app": "bench"},
		Containers: []redirect.Container{
			{Name: "app"},
			{Name: redirect.ProxyContainer, Args: []string{"proxy", "sidecar"}, RunAsUser: &uid, RunAsGroup: &uid},
		},
	}}
}
