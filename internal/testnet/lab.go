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
	// Families are the families in which the pod has addresses; none means both.
	Families []Family
	// NoIPv6 disables IPv6 in the pod by sysctl. Families must then be IPv4 only.
	NoIPv6 bool
	// UserNamespace makes a user namespace own the pod's network namespace, as with hostUsers: false. User and group
	// IDs in flows and profiles remain those inside it.
	UserNamespace bool
	// OwnUser runs the sidecar as the proxy's user in TPROXY mode, too, instead of root.
	OwnUser bool
	// Bare omits the servers in pod, peer and virtual machine.
	Bare bool
}

// Lab is the network with its stand-ins. It is not safe for concurrent use.
type Lab struct {
	// Path is the file of the pod's network namespace, as in CNI_NETNS.
	Path string
	// PeerPath is the file of the peer's network namespace.
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

// New builds a lab and starts everything but the sidecar. The caller must Close it.
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

// Close removes everything. It may be called twice, and on an incomplete lab.
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
		"ipv4/ping_group_range":                  "0 200000", // every identity may ping; host IDs, also for a user namespace
		"ipv4/ip_unprivileged_port_start":        "0",        // the app may listen on port 53
		"ipv6/conf/default/accept_dad":           "0",        // link-local addresses are usable at once
		"ipv6/conf/default/accept_ra":            "0",
		"ipv6/conf/default/router_solicitations": "0",
		"ipv4/conf/all/rp_filter":                "0",
		"ipv4/conf/default/rp_filter":            "0",
		"ipv4/ip_forward":                        "1", // the pod forwards for its virtual machine
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
		l.peer.defaultRoute("eth0", Pod, f), // the route back to the virtual machine
		l.vm.addr("eth0", VM, f, 24, 64),
		l.vm.defaultRoute("eth0", Net1, f),
	)
}

// Families returns the families in which the pod has addresses.
func (l *Lab) Families() []Family { return l.options.Families }

// InPod runs call on a thread in the pod's network namespace, as the host's root.
func (l *Lab) InPod(call func()) { l.pod.root.do(call) }

// PodCommand returns a command that runs in the pod's network namespace, as the host's root.
func (l *Lab) PodCommand(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + l.Path, name}, args...)...)
}

// AddPassthrough adds the address ::6 to lo, which IPv6 flows from Passthrough need. The writer of the rules adds it;
// this is for tests that write rules themselves.
func (l *Lab) AddPassthrough() error {
	return l.pod.addr("lo", Passthrough, []Family{IPv6}, 0, 128)
}
