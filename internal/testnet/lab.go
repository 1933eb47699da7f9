package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Options says what kind of pod a Lab has.
type Options struct {
	// Families the pod has addresses of; none means both.
	Families []Family
	// NoIPv6 disables IPv6 in the pod by sysctl. IPv6 must then not be among the families.
	NoIPv6 bool
	// UserNamespace makes the pod's network namespace belong to a user namespace of its own, as with hostUsers: false.
	// User and group IDs of flows and profiles stay those seen inside.
	UserNamespace bool
	// OwnUser has the sidecar run as the proxy's user in TPROXY mode, too, and not as root.
	OwnUser bool
	// Bare leaves out those who serve in pod, peer and virtual machine.
	Bare bool
}

// Lab is the network and the stand-ins in it. Its methods may not be called at the same time.
type Lab struct {
	// Path is the file that holds the pod's network namespace, as a container runtime would pass it.
	Path string
	// PeerPath holds the peer's.
	PeerPath string

	options       Options
	dir           string
	pod, peer, vm *node
	threads       map[identity]*thread
	servers       []*server
	sidecar       *sidecar
	profile       Profile
	settings      settings
	rounds        *rounds
}

// New builds a lab, with everything but the sidecar running. The caller must Close it.
func New(options Options) (*Lab, error) {
	sweep()
	if len(options.Families) == 0 {
		options.Families = []Family{IPv4, IPv6}
	}
	l := &Lab{options: options, threads: map[identity]*thread{}}
	for _, step := range []func() error{l.makeNodes, l.connect, l.Settle, l.startServers} {
		if err := step(); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// Close removes everything. It may be called twice, and on a lab that was not completed.
func (l *Lab) Close() error {
	if l.sidecar != nil {
		l.sidecar.stop()
		l.sidecar = nil
	}
	for _, s := range l.servers {
		s.stop()
	}
	for _, t := range l.threads {
		t.stop()
	}
	l.servers, l.threads = nil, nil
	for _, n := range []*node{l.pod, l.peer, l.vm} {
		if n != nil {
			n.close()
		}
	}
	l.pod, l.peer, l.vm = nil, nil, nil
	if l.rounds != nil {
		l.rounds.close()
		l.rounds = nil
	}
	if l.dir == "" {
		return nil
	}
	return unmountAll(l.dir)
}

func (l *Lab) makeNodes() (err error) {
	if l.dir, err = os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid())); err != nil {
		return err
	}
	if err = os.Mkdir(filepath.Join(l.dir, "netns"), 0o755); err != nil {
		return err
	}
	l.Path, l.PeerPath = filepath.Join(l.dir, "netns", "pod"), filepath.Join(l.dir, "netns", "peer")
	common := map[string]string{
		"ipv4/ping_group_range":                  "0 200000", // lets every identity ping; host IDs, also for a user namespace
		"ipv4/ip_unprivileged_port_start":        "0",        // lets the app serve port 53
		"ipv6/conf/default/accept_dad":           "0",        // no second of waiting for link-local addresses
		"ipv6/conf/default/accept_ra":            "0",
		"ipv6/conf/default/router_solicitations": "0",
		"ipv4/conf/all/rp_filter":                "0",
		"ipv4/conf/default/rp_filter":            "0",
		"ipv4/ip_forward":                        "1", // the pod routes for its virtual machine
		"ipv6/conf/all/forwarding":               "1",
	}
	pod := map[string]string{}
	for key, value := range common {
		pod[key] = value
	}
	if l.options.NoIPv6 {
		delete(pod, "ipv6/conf/all/forwarding")
		pod["ipv6/conf/all/disable_ipv6"], pod["ipv6/conf/default/disable_ipv6"] = "1", "1"
	}
	if l.pod, err = newNode(l.Path, l.options.UserNamespace, pod); err != nil {
		return err
	}
	if l.peer, err = newNode(l.PeerPath, false, common); err != nil {
		return err
	}
	if l.rounds, err = newRounds(l.peer); err != nil {
		return err
	}
	l.vm, err = newNode(filepath.Join(l.dir, "netns", "vm"), false, common)
	return err
}

func (l *Lab) connect() error {
	f := l.options.Families
	return errors.Join(
		l.pod.veth("eth0", l.peer, "eth0"),
		l.pod.veth("net1", l.vm, "eth0"),
		l.pod.addr("eth0", Pod, f, 24, 64),
		l.pod.addr("lo", Self, f, 32, 128),
		l.pod.addr("net1", Net1, f, 24, 64),
		l.pod.defaultRoute("eth0", Peer, f),
		l.peer.addr("eth0", Peer, f, 24, 64),
		l.peer.addr("lo", Service, f, 32, 128),
		l.peer.addr("lo", Outside, f, 32, 128),
		l.peer.defaultRoute("eth0", Pod, f), // the way back to the virtual machine
		l.vm.addr("eth0", VM, f, 24, 64),
		l.vm.defaultRoute("eth0", Net1, f),
	)
}

// Families returns the families that the pod has addresses of.
func (l *Lab) Families() []Family { return l.options.Families }

// InPod runs call on a thread inside the pod's network namespace, as the host's root.
func (l *Lab) InPod(call func()) { l.pod.root.do(call) }

// PodCommand returns a command that runs inside the pod's network namespace, as the host's root.
func (l *Lab) PodCommand(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + l.Path, name}, args...)...)
}

// AddPassthrough gives lo the address ::6, without which the IPv6 flows from Passthrough cannot start. The rules'
// writer is supposed to do that; this is for tests that write rules by themselves.
func (l *Lab) AddPassthrough() error {
	return l.pod.addr("lo", Passthrough, []Family{IPv6}, 0, 128)
}
