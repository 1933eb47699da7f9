package netfilter

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// TestRemoveWithoutOneFamily has no programs for one family: Remove removes the other family's rules all the same.
func TestRemoveWithoutOneFamily(t *testing.T) {
	for _, gone := range redirect.Families {
		t.Run(gone.String(), func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			applied := mustApply(t, n, IptablesLegacy, named(t, "tproxy-dns"))
			onHostWith(t, func(name string) bool { return !strings.HasPrefix(name, iptablesName(gone)+"-") })
			err := n.Remove(applied)
			if !IsUnusable(err) || !strings.Contains(err.Error(), iptablesName(gone)+"-restore was there at ADD") {
				t.Errorf("error %v", err)
			}
			onThisHost(t)
			for _, family := range redirect.Families {
				rules := shell(t, lab, iptablesName(family)+"-legacy-save")
				if left := strings.Contains(rules, istioPrefix); left != (family == gone) {
					t.Errorf("%s, left: %t\n%s", family, left, rules)
				}
			}
		})
	}
}

// TestLostAcknowledgement loses the kernel's answer to every transaction, also in the scratch namespace: ADD fails and
// leaves nothing, whatever was there before.
func TestLostAcknowledgement(t *testing.T) {
	for _, before := range []string{"nothing", "rules of an earlier ADD"} {
		t.Run(before, func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			clean := everything(t, lab)
			var created []string
			if before != "nothing" {
				created = mustApply(t, n, Nftables, named(t, "default")).Created
			}
			lose(t, func(int) bool { return true })
			if applied, err := n.Apply(Auto, named(t, "tproxy-dns")); !netlink.IsLost(err) {
				t.Errorf("%+v, %v", applied, err)
			}
			_ = n.Remove(Applied{Created: created})
			compareText(t, everything(t, lab), clean)
		})
	}
	t.Run("once", func(t *testing.T) {
		_, n := newLab(t, testnet.Options{})
		lose(t, func(number int) bool { return number == 1 })
		mustApply(t, n, Nftables, named(t, "tproxy-dns"))
	})
}

// lose drops the answers to the chosen transactions, counted from 1. Not for parallel tests.
func lose(t *testing.T, chosen func(number int) bool) {
	saved, number := batch, 0
	batch = func(conn *netlink.Conn, messages []netlink.Message, acked int) (int, error) {
		refused, err := saved(conn, messages, acked)
		if number++; err == nil && chosen(number) {
			err = &netlink.LostError{Err: errors.New("by the test")}
		}
		return refused, err
	}
	t.Cleanup(func() { batch = saved })
}

// TestRemoveLeavesIstio adds chains with Istio's names to a table next to ours after ADD: Remove must keep them.
func TestRemoveLeavesIstio(t *testing.T) {
	for _, backend := range []Backend{IptablesNFT, IptablesLegacy} {
		t.Run(string(backend), func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			applied := mustApply(t, n, backend, named(t, "default"))
			program := iptablesName(redirect.IPv4) + strings.TrimPrefix(string(backend), "iptables")
			shell(t, lab, strings.ReplaceAll(`IPT -t mangle -N ISTIO_DIVERT; IPT -t mangle -A ISTIO_DIVERT -j ACCEPT
				IPT -t mangle -A PREROUTING -j ISTIO_DIVERT`, "IPT", program))
			mangle := fmt.Sprintf("%s-save -t mangle | grep -v ^#", program)
			before := shell(t, lab, mangle)
			if err := n.Remove(applied); err != nil {
				t.Error(err)
			}
			compareText(t, shell(t, lab, mangle), before)
			if nat := shell(t, lab, program+"-save -t nat"); strings.Contains(nat, istioPrefix) {
				t.Errorf("left: %s", nat)
			}
		})
	}
}
