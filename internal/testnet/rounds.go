package testnet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Silent is how many rounds must pass without an answer until a flow counts as unanswered. The longest path of a packet
// and its answer, by the peer and the virtual machine, has half as many steps.
const Silent = 12

// rounds prove that nothing more can arrive, however slow the machine is. In one round, every processor delivers a
// packet that was queued after all others, and every stand-in's event loop completes an iteration.
type rounds struct {
	from, to int // UDP sockets on lo, which no rules affect
	sent     uint64
	servers  []*server

	mutex  sync.Mutex
	next   chan struct{} // closed when the current round, or the next one, has passed
	wanted chan struct{} // has one element if somebody waits for a round
}

// newRounds creates the sockets in the node.
func newRounds(n *node) (r *rounds, err error) {
	r = &rounds{next: make(chan struct{}), wanted: make(chan struct{}, 1)}
	for _, fd := range []*int{&r.from, &r.to} {
		n.root.do(func() { *fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) })
		if err == nil {
			err = unix.Bind(*fd, sockaddr(netip.AddrPortFrom(Loopback.Addr(IPv4), 0)))
		}
		if err != nil {
			return nil, fmt.Errorf("making a socket for rounds: %w", err)
		}
	}
	to, err := unix.Getsockname(r.to)
	if err != nil {
		return nil, err
	}
	err = unix.SetsockoptTimeval(r.to, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	return r, errors.Join(err, unix.Connect(r.from, to))
}

func (r *rounds) close() {
	unix.Close(r.from)
	unix.Close(r.to)
}

// during calls do, and runs rounds meanwhile, as long as somebody waits for one.
func (r *rounds) during(servers []*server, do func()) {
	r.servers = servers
	for _, s := range servers {
		s.do(func() { clear(s.heard) })
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-r.wanted:
				r.round()
			}
		}
	}()
	do()
	close(stop)
	<-stopped
}

// heard returns the answer of a stand-in to a question, if the question has arrived.
func (r *rounds) heard(question string) (a answer, found bool) {
	for _, s := range r.servers {
		s.do(func() {
			if said, there := s.heard[question]; there {
				a, found = said, true
			}
		})
	}
	return a, found
}

// round panics if the kernel does not let it: a missing answer would then mean nothing.
func (r *rounds) round() {
	if err := r.deliver(); err != nil {
		panic(fmt.Sprintf("delivering a packet on every processor: %v", err))
	}
	var around []<-chan struct{}
	for _, s := range r.servers {
		around = append(around, s.submit(func() {}))
	}
	for _, done := range around {
		<-done
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	close(r.next)
	r.next = make(chan struct{})
}

// delivery is a packet on every processor, for all labs that have requested it before it begins: they share the
// processors.
type delivery struct {
	done chan struct{}
	err  error
}

var deliveries struct {
	mutex sync.Mutex
	next  *delivery  // one that has not begun
	turn  sync.Mutex // held during a delivery
}

// deliver waits for the end of a delivery that began after the call.
func (r *rounds) deliver() error {
	deliveries.mutex.Lock()
	d := deliveries.next
	if d != nil {
		deliveries.mutex.Unlock()
		<-d.done
		return d.err
	}
	d = &delivery{done: make(chan struct{})}
	deliveries.next = d
	deliveries.mutex.Unlock()
	deliveries.turn.Lock()
	defer deliveries.turn.Unlock()
	deliveries.mutex.Lock()
	deliveries.next = nil
	deliveries.mutex.Unlock()
	d.err = r.everyProcessor()
	close(d.done)
	return d.err
}

// everyProcessor sends a packet on every processor of this process, and waits for each one to arrive. A processor
// delivers what is queued on it in order, and what a packet causes is queued on the same processor.
func (r *rounds) everyProcessor() error {
	runtime.LockOSThread() // for its affinity
	defer runtime.UnlockOSThread()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu, left := 0, all.Count(); left > 0; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		left--
		var one unix.CPUSet
		one.Set(cpu)
		if err := errors.Join(unix.SchedSetaffinity(0, &one), r.arrives()); err != nil {
			return err
		}
	}
	return unix.SchedSetaffinity(0, &all)
}

// arrives sends a packet and waits for it. It sends one that does not arrive again: the kernel drops packets that come
// to a full queue.
func (r *rounds) arrives() error {
	r.sent++
	packet := binary.NativeEndian.AppendUint64(nil, r.sent)
	for {
		if _, err := unix.Write(r.from, packet); err != nil {
			return err
		}
		for received, err := make([]byte, len(packet)), error(nil); !errors.Is(err, unix.EAGAIN); {
			_, err = unix.Read(r.to, received)
			switch {
			case err == nil && bytes.Equal(received, packet): // others are late
				return nil
			case err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN):
				return err
			}
		}
	}
}

// errSilence is the error if nothing has arrived.
var errSilence = errors.New("no answer")

// until calls try after every round, until it is done or returns an error. It returns errSilence after that many
// rounds.
func (r *rounds) until(silent int, try func() (done bool, err error)) error {
	for range silent + 1 { // the first round may have begun before the call
		if done, err := try(); done || err != nil {
			return err
		}
		r.mutex.Lock()
		next := r.next
		r.mutex.Unlock()
		select {
		case r.wanted <- struct{}{}:
		default:
		}
		<-next
	}
	if done, err := try(); done || err != nil {
		return err
	}
	return errSilence
}
