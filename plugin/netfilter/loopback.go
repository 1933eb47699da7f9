package netfilter

import (
	"time"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// loopbackUp is that lo is up. It is asked and set by ioctl, netdevice(7): one number instead of everything that
// netlink tells of a link.
type loopbackUp struct{}

func (loopbackUp) String() string          { return "link lo up" }
func (loopbackUp) family() redirect.Family { return 0 }

// add waits for the runtime to set lo up, and does so itself where that does not come: cnitool leaves it down.
// containerd has the plugin loopback do it, beside the primary network's plugins. That refuses a lo that has ::6 by
// then, which costs the pod its sandbox. (CRI-O and cri-dockerd set lo up before any plugin.)
func (l loopbackUp) add(c *netlink.Conn) (made bool, err error) {
	up, err := l.exists(c)
	if up || err != nil {
		return false, err
	}
	for range loopbackPauses {
		pause(loopbackPause)
		if up, err = l.exists(c); err != nil {
			return false, err
		}
		if up {
			for range loopbackLooks {
				pause(loopbackPause)
			}
			return false, nil
		}
	}
	before, err := loopbackFlags(unix.IFF_UP, 0)
	return err == nil && before&unix.IFF_UP == 0, err
}

const (
	loopbackPause  = 10 * time.Millisecond // they are counted, so that a wait grows with what a busy node makes of each
	loopbackPauses = 100
	loopbackLooks  = 5 // in which the plugin loopback asks for the addresses, once lo is up
)

var pause = time.Sleep // tests count instead

func (loopbackUp) remove(*netlink.Conn) error {
	_, err := loopbackFlags(0, unix.IFF_UP)
	return err
}

func (loopbackUp) exists(*netlink.Conn) (bool, error) {
	flags, err := loopbackFlags(0, 0)
	return flags&unix.IFF_UP != 0, err
}

// loopbackFlags sets and clears flags of lo, and returns what they were before.
func loopbackFlags(set, clear uint16) (before uint16, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return 0, err
	}
	before = request.Uint16()
	if after := before&^clear | set; after != before {
		request.SetUint16(after)
		return before, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
	}
	return before, nil
}
