package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// node is the stand-in for a Kubernetes node: binaries, a state directory on tmpfs, and an agent that answers facts.
type node struct {
	dir    string
	pods   int  // pods made so far, for names
	verify bool // a mesh ADD must leave a record and a DEL must remove it
}

func (n *node) binary(name string) string { return filepath.Join(n.dir, name) }
func (n *node) stateDir() string          { return filepath.Join(n.dir, "state") }
func (n *node) socket() string            { return filepath.Join(n.stateDir(), "agent.sock") }

// newNode sets the node up in the private mount and network namespace this process was started in.
func newNode(dir string) (*node, error) {
	n := &node{dir: dir}
	// Without this, mounts made here would appear on the machine too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	for _, sub := range []string{"state", "netns"} {
		path := filepath.Join(dir, sub)
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, err
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, "mode=0700"); err != nil {
			return nil, fmt.Errorf("mounting tmpfs on %q: %w", path, err)
		}
	}
	return n, n.serveFacts()
}

// verified reports a call that did not do its work: a plugin that does nothing is fast.
func (n *node) verified(s spec, p pod) error {
	if !n.verify || !s.mesh || s.verb == check {
		return nil
	}
	path := filepath.Join(n.stateDir(), "pods", p.id+"-eth0.json")
	_, err := os.Stat(path)
	if exists := err == nil; exists != (s.verb == add) {
		return fmt.Errorf("after %s, record %q: exists is %t", s.verb, path, exists)
	}
	return nil
}

// pod is one sandbox: a network namespace and the IDs a runtime would give it.
type pod struct {
	id    string // container ID
	netns string // path
}

// newPod makes a network namespace with lo and a dual-stack eth0 up, pinned until the process ends.
func (n *node) newPod() (pod, error) {
	n.pods++
	p := pod{id: fmt.Sprintf("%064x", n.pods), netns: filepath.Join(n.dir, "netns", fmt.Sprint(n.pods))}
	if err := os.WriteFile(p.netns, nil, 0o444); err != nil {
		return p, err
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread changes its namespace and must end with the goroutine
		result <- pinNetns(p.netns)
	}()
	if err := <-result; err != nil {
		return p, fmt.Errorf("making pod %q: %w", p.netns, err)
	}
	return p, nil
}

// pinNetns moves the calling thread into a new network namespace and bind mounts it on path.
func pinNetns(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	if err := unix.Mount(self, path, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
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
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	return netlink.LinkSetUp(veth)
}

// serveFacts answers every question with the same mesh pod, from memory, like an agent that has the pod in its cache.
func (n *node) serveFacts() error {
	listener, err := facts.Listen(n.socket())
	if err != nil {
		return err
	}
	go func() { _ = facts.Serve(listener, answer) }() // ends with the process
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
