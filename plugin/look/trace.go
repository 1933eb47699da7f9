package look

import (
	"errors"
	"fmt"
	"time"

	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/record"
	"golang.org/x/sys/unix"
)

// within bounds how long the packet is waited for: in the pod it takes no time, from outside it has to get there.
const within = 3 * time.Second

// mostListed bounds in bytes the lists of what is in the pod's network namespace: who has CAP_NET_ADMIN there may have
// filled it.
const mostListed = 1 << 20

// notTold says that the kernel tells nothing, and why.
type notTold struct{ why, value string }

func (e *notTold) Error() string { return e.why }

// errKnown says that the packet has the port of a connection to the same address, which the kernel remembers.
var errKnown = errors.New("the packet belongs to a connection")

// trace sends the packet and returns what the kernel says of it.
func (q *question) trace() (told report.Trace, err error) {
	for range 10 { // ports are chosen by chance, of 28,232
		if told, err = q.traced(); !errors.Is(err, errKnown) {
			break
		}
	}
	if errors.Is(err, errKnown) {
		err = &notTold{why: "every source port that was tried has a connection to " + q.to.String() + "; ask again"}
	}
	var not *notTold
	if errors.As(err, &not) {
		return report.Trace{Why: not.why, Value: not.value}, nil
	}
	return told, err
}

func (q *question) traced() (told report.Trace, err error) {
	if kernel, owns := ownsTables(); !owns {
		return told, &notTold{why: "a table of nftables that goes with its process takes Linux 5.12, and this is " + kernel}
	}
	netns, err := netfilter.Open(q.netns)
	if err != nil {
		return told, err
	}
	defer netns.Close()
	if !q.outside && netns.UserNamespaced() {
		return told, &notTold{why: "the pod has a user namespace of its own (hostUsers: false), and which user of the node " +
			"is which of the pod is not known here; what comes from outside can be traced"}
	}
	var packet *packet
	var its *listener
	defer func() { // the table goes first: until then the port must be nobody else's
		if its != nil {
			its.forget()
			its.close()
		}
		if packet != nil {
			packet.close()
		}
	}()
	if q.outside {
		if packet, err = q.open(); err != nil {
			return told, err
		}
	}
	err = netns.Within(func() (err error) {
		if err := q.isIt(); err != nil {
			return err
		}
		if packet == nil {
			if packet, err = q.openAs(); err != nil {
				return err
			}
		}
		if its, err = q.listen(packet.port); err != nil {
			return err
		}
		if !q.outside {
			return packet.send(q.to)
		}
		return nil
	})
	if err == nil && q.outside {
		err = packet.send(q.to)
	}
	if err != nil {
		return told, err
	}
	return its.hear(time.Now().Add(within))
}

// isIt refuses a network namespace that is not the one that the record is about: a path is used again.
func (q *question) isIt() error {
	id, err := record.CurrentNetNS()
	if err != nil {
		return err
	}
	if id != q.id {
		return &notTold{why: fmt.Sprintf("the network namespace at %s is not the one that the record is about", q.netns)}
	}
	return nil
}

// listen has the kernel tell of the packet: everything is in place when it returns.
func (q *question) listen(port uint16) (its *listener, err error) {
	its = &listener{port: port, proto: q.proto, ids: map[uint32]bool{}, renamed: map[uint32][]object{}}
	if err := its.know(); err != nil {
		return its, err
	}
	if its.ear, err = netlink.Dial(unix.NETLINK_NETFILTER); err != nil {
		return its, err
	}
	if err := its.ear.Join(unix.NFNLGRP_NFTRACE); err != nil {
		return its, err
	}
	if its.owner, err = netlink.Dial(unix.NETLINK_NETFILTER); err != nil {
		return its, err
	}
	return its, q.addTable(its.owner, port)
}

// ownsTables reports whether the kernel, whose release it returns, knows the flag owner of tables. Others refuse some
// flags that they do not know and ignore others, so that is not tried.
func ownsTables() (release string, owns bool) {
	release = kernel()
	var major, minor int
	_, err := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return release, err == nil && (major > 5 || major == 5 && minor >= 12)
}

// kernel is its release; tests change it.
var kernel = func() string {
	var its unix.Utsname
	if unix.Uname(&its) != nil {
		return ""
	}
	return unix.ByteSliceToString(its.Release[:])
}
