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

// HelperPort is where somebody at a server's address does what an attempt needs of somebody outside, by UDP, which
// nobody redirects. It is asked by a line "NUMBER round", "NUMBER call FROM TO" or, with one of escape.Packet,
// "NUMBER PACKET FROM TO", and answers "NUMBER done", or "NUMBER error TEXT".
const HelperPort = 8083

// Helper does what a pod asks of it: questions are asked and answered as at HelperPort.
type Helper func(what string, from, to netip.AddrPort) (answer string, err error)

// Done is the answer that something is done; what failed begins with the other.
const (
	Done   = "done"
	failed = "error "
)

// Answer answers one question, as ServeUDP wants it.
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

// silent is how many questions to the helper are answered, one after the other, until nothing else comes any more.
const silent = 30

// Asker asks a helper.
type Asker struct {
	c     net.Conn
	seal  Seal
	asked int
}

// NewAsker returns one for the helper at an address, and for attempts against a server there, both with that seal.
func NewAsker(at netip.Addr, seal Seal) (*Asker, error) {
	c, err := net.Dial("udp", netip.AddrPortFrom(at, HelperPort).String())
	return &Asker{c: c, seal: seal}, err
}

// Own is the pod's address, by which it reaches the helper.
func (h *Asker) Own() netip.Addr { return h.c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap() }

// ErrNoHelper says that the helper has not done what it was asked for.
var ErrNoHelper = errors.New("nobody helps")

// Do has the helper do something, and returns when it has.
func (h *Asker) Do(question string) error {
	_, err := h.Ask(question)
	return err
}

// Ask returns the helper's answer.
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

// hear reads until the answer with the number comes, or none. What strangers say is passed over.
func (h *Asker) hear(number, nonce string) (string, bool) {
	_ = h.c.SetReadDeadline(time.Now().Add(2 * Patience)) // who helps may make a call before
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

// until tries until it is done or fails, and fails when so much has come back that was sent later that nothing else can
// come.
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

// send has the helper send what an attempt needs.
func (h *Asker) send(what escape.Packet, from, to netip.AddrPort) error {
	return errors.Join(h.Do(fmt.Sprint(what, " ", from, " ", to)), h.Do("round"))
}

// call has the helper call.
func (h *Asker) call(from, to netip.AddrPort) error { return h.Do(fmt.Sprint("call ", from, " ", to)) }
