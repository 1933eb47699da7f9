package trace

import (
	"net/netip"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// redirected is the address that a redirection sends to: lo's, of what the pod sends, else the first one of the
// interface. Source: nf_nat_redirect_ipv4 in net/netfilter/nf_nat_redirect.c.
func (w *walk) redirected(hook redirect.Hook) netip.Addr {
	if hook == redirect.Output {
		if w.packet.Family() == redirect.IPv6 {
			return netip.IPv6Loopback()
		}
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if address := w.pod.named(w.in).address(w.packet.Family()); address.IsValid() {
		return address
	}
	return w.packet.Dest.Addr()
}

// translate gives the packet another destination; the first one that does so is the last.
func (w *walk) translate(to netip.AddrPort) verdict {
	w.packet.Dest, w.conn.judged = to, true
	return accepted
}

// giveBack gives an answer the source that its connection's first packet was for: nat may have led that elsewhere.
// Source: nf_nat_packet in net/netfilter/nf_nat_core.c.
func (w *walk) giveBack() {
	if w.conn.reply && w.conn.original.IsValid() {
		w.packet.Source = w.conn.original
	}
}

// lead gives a later packet of a connection the destination that nat has given the first one.
func (w *walk) lead(hook redirect.Hook) {
	if w.conn.led.IsValid() && (hook == redirect.Prerouting || hook == redirect.Output) {
		w.packet.Dest = w.conn.led
	}
}
