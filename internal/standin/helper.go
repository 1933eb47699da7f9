package standin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/internal/escape"
)

// HelperPort is the port at a server's address on which the helper listens by UDP, which is not redirected. The helper
// does what an attempt needs outside the pod. A request is a line "NUMBER round", "NUMBER call FROM TO" or, with one of
// escape.Packet, "NUMBER PACKET FROM TO". The answer is "NUMBER done" or "NUMBER error TEXT".
const HelperPort = 8083

// Helper serves the requests of a pod, in the form of HelperPort without the number.
type Helper func(what string, from, to netip.AddrPort) (answer string, err error)

// Done is the answer if a request is done. An answer about a failure starts with the other text.
const (
	Done   = "done"
	failed = "error "
)

// Answer answers one request, for ServeUDP.
func (h Helper) Answer(line string) string {
	number, question, _ := strings.Cut(line, " ")
	answer, err := h.answer(question)
	if err != nil {
		answer = failed + err.Error()
	}
	return number + " " + strings.Join(strings.Fields(answer), " ")
}

func (h Helper) answer(question string) (string, error) {
	if question == "round" {
		return Done, nil
	}
	words := strings.Fields(question)
	if len(words) != 3 {
		return "", fmt.Errorf("no such question: %q", question)
	}
	from, err := netip.ParseAddrPort(words[1])
	to, wrong := netip.ParseAddrPort(words[2])
	if err = errors.Join(err, wrong); err != nil {
		return "", err
	}
	return h(words[0], from, to)
}

// silent is how many further requests the helper must answer in turn until nothing else can arrive.
const silent = 30

// Asker sends requests to a helper.
type Asker struct {
	c     net.Conn
	seal  Seal
	asked int
}

// NewAsker returns an Asker for the helper at an address, and for attempts against the server there. Both have the
// seal.
func NewAsker(at netip.Addr, seal Seal) (*Asker, error) {
	c, err := net.Dial("udp", netip.AddrPortFrom(at, HelperPort).String())
	return &Asker{c: c, seal: seal}, err
}

// Own returns the pod's address on the way to the helper.
func (h *Asker) Own() netip.Addr { return h.c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap() }

// ErrNoHelper is the error if the helper has not done what was requested.
var ErrNoHelper = errors.New("nobody helps")

// Do sends a request to the helper, and returns when it is done.
func (h *Asker) Do(question string) error {
	_, err := h.Ask(question)
	return err
}

// Ask sends a request and returns the helper's answer.
func (h *Asker) Ask(question string) (string, error) {
	h.asked++
	line, nonce := h.seal.call(fmt.Sprint(h.asked, " ", question))
	for range 5 {
		if _, err := fmt.Fprintln(h.c, line); err != nil {
			return "", errors.Join(ErrNoHelper, err)
		}
		if answer, heard := h.hear(fmt.Sprint(h.asked, " "), nonce); heard {
			if why, not := strings.CutPrefix(answer, failed); not {
				return "", fmt.Errorf("%w: %s", ErrNoHelper, why)
			}
			return answer, nil
		}
	}
	return "", ErrNoHelper
}

// hear reads until the answer with the number arrives, or none does. It ignores what strangers send.
func (h *Asker) hear(number, nonce string) (string, bool) {
	_ = h.c.SetReadDeadline(time.Now().Add(2 * patience)) // the helper may make a call before it answers
	for buffer := make([]byte, 512); ; {
		n, err := h.c.Read(buffer)
		if err != nil {
			return "", false
		}
		said, err := h.seal.answered(nonce, strings.TrimSpace(string(buffer[:n])))
		if answer, found := strings.CutPrefix(said, number); found && err == nil {
			return answer, true
		}
	}
}

var errSilence = errors.New("nobody answers")

// until calls try until it is done or returns an error. It fails once so many later answers have arrived that nothing
// else can.
func (h *Asker) until(try func() (bool, error)) error {
	for range silent {
		if done, err := try(); done || err != nil {
			return err
		}
		if err := h.Do("round"); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errSilence
}

// send makes the helper send a packet for an attempt.
func (h *Asker) send(what escape.Packet, from, to netip.AddrPort) error {
	return errors.Join(h.Do(fmt.Sprint(what, " ", from, " ", to)), h.Do("round"))
}

// call makes the helper call.
func (h *Asker) call(from, to netip.AddrPort) error { return h.Do(fmt.Sprint("call ", from, " ", to)) }
