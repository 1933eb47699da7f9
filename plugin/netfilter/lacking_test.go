package netfilter

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// modules are kernel modules of this machine, and what is refused if they are missing: by nf_tables, in every network
// namespace, and by the host's iptables. `make kernels` removes the modules themselves.
var modules = map[string]struct {
	refused  func(netlink.Message) bool
	errno    unix.Errno
	programs []broken
}{
	"nf_tables": {func(netlink.Message) bool { return true }, unix.EINVAL, bothBroken(IptablesNFT, "raw")},
	"nft_chain_nat": {func(m netlink.Message) bool {
		return verbOf(m) == unix.NFT_MSG_NEWCHAIN && holds(m, unix.NFTA_CHAIN_TYPE, "nat\x00")
	}, unix.ENOENT, bothBroken(IptablesNFT, "nat")},
	"nft_tproxy": {func(m netlink.Message) bool {
		return verbOf(m) == unix.NFT_MSG_NEWRULE && holds(m, unix.NFTA_RULE_EXPRESSIONS, "tproxy\x00")
	}, unix.ENOENT, nil},
	"nft_compat":   {nil, 0, bothBroken(IptablesNFT, "raw")},
	"ip6table_nat": {nil, 0, []broken{{IptablesLegacy, redirect.IPv6, "nat"}}},
	"xt_owner":     {nil, 0, append(bothBroken(IptablesNFT, "nat"), bothBroken(IptablesLegacy, "nat")...)},
	"ip_tables":    {nil, 0, bothBroken(IptablesLegacy, "raw")},
}

func verbOf(m netlink.Message) uint16 { return m.Kind & 0xff }

func holds(m netlink.Message, attr uint16, text string) bool {
	for _, a := range m.Attributes {
		if a.Type&^unix.NLA_F_NESTED == attr && bytes.Contains(a.Data, []byte(text)) {
			return true
		}
	}
	return false
}

func bothBroken(backend Backend, at string) (both []broken) {
	for _, family := range redirect.Families {
		both = append(both, broken{backend, family, at})
	}
	return both
}

// lacking hides modules until restore is called. Not for parallel tests.
func lacking(t *testing.T, names ...string) (restore func()) {
	t.Helper()
	saved, savedDump := batch, dump
	restore = func() {
		batch, dump = saved, savedDump
		onThisHost(t)
	}
	t.Cleanup(restore)
	var programs []broken
	for _, name := range names {
		module := modules[name]
		programs = append(programs, module.programs...)
		if module.refused != nil {
			refuse(module.refused, module.errno)
		}
	}
	withBroken(t, programs...)
	return restore
}

func refuse(refused func(netlink.Message) bool, errno unix.Errno) {
	nextBatch, nextDump := batch, dump
	batch = func(conn *netlink.Conn, messages []netlink.Message, acked int) (int, error) {
		for i, m := range messages {
			if verbOf(m) != unix.NFNL_MSG_BATCH_BEGIN && refused(m) {
				return i, errno
			}
		}
		return nextBatch(conn, messages, acked)
	}
	dump = func(conn *netlink.Conn, m netlink.Message) ([][]byte, error) {
		if refused(m) {
			return nil, errno
		}
		return nextDump(conn, m)
	}
}

// lackings are kernels that lack something: what is written all the same, or the error of ADD and STATUS.
var lackings = []struct {
	lacks   string
	backend Backend
	profile string
	want    Backend
	err     []string
}{
	{"nf_tables", Auto, "default", IptablesLegacy, nil},
	{"nf_tables", Iptables, "tproxy-dns", IptablesLegacy, nil},
	{"nf_tables", IptablesLegacy, "default", IptablesLegacy, nil},
	{"nf_tables", Nftables, "default", "", []string{"backend nftables is not usable: the kernel has no nf_tables"}},
	{"nf_tables", IptablesNFT, "default", "", []string{"backend iptables-nft is not usable: the kernel has no nf_tables"}},
	{"nf_tables ip_tables", Auto, "default", "", []string{"backend auto is not usable: nftables: the kernel has no " +
		"nf_tables; iptables-nft: the kernel has no nf_tables; iptables-legacy: running ip6tables-legacy-restore: ",
		"ip6tables-legacy-restore is broken; running iptables-legacy-restore: "}},
	{"nft_chain_nat", Auto, "tproxy-dns", IptablesLegacy, nil},
	{"nft_chain_nat", Iptables, "default", IptablesLegacy, nil},
	{"nft_chain_nat", Nftables, "default", "", []string{"backend nftables is not usable: committing the nftables " +
		"transaction: adding chain ip6 nat-istio-inbound: no such file or directory"}},
	{"nft_chain_nat", IptablesNFT, "default", "", []string{"backend iptables-nft is not usable: running ",
		"iptables-nft-restore is broken"}},
	{"nft_chain_nat ip_tables", Auto, "default", "", []string{"backend auto is not usable: nftables: committing the ",
		"; iptables-nft: running ip6tables-nft-restore: ", "; iptables-legacy: running ip6tables-legacy-restore: "}},
	{"nft_tproxy", Auto, "default", Nftables, nil},
	{"nft_tproxy", Auto, "tproxy-dns", IptablesNFT, nil},
	{"nft_tproxy", Nftables, "tproxy-dns", "", []string{"backend nftables is not usable: committing the nftables " +
		"transaction: adding a rule to chain ip6 mangle-istio-tproxy: no such file or directory"}},
	{"nft_tproxy nft_compat", Auto, "tproxy-dns", IptablesLegacy, nil},
	{"nft_compat", Iptables, "default", IptablesLegacy, nil},
	{"ip6table_nat", Auto, "default", Nftables, nil},
	{"ip6table_nat", Iptables, "default", IptablesNFT, nil},
	{"ip6table_nat", IptablesLegacy, "default", "", []string{"backend iptables-legacy is not usable: running " +
		"ip6tables-legacy-restore: exit status 1: ip6tables-legacy-restore is broken; " + usesNFT}},
	{"xt_owner", Auto, "default", Nftables, nil},
	{"xt_owner", Iptables, "default", "", []string{"backend iptables is not usable: iptables-nft: running " +
		"ip6tables-nft-restore: ", "; iptables-legacy: running ip6tables-legacy-restore: ", "; " + usesNFT}},
	{"xt_owner nft_chain_nat", Auto, "default", "", []string{"nftables: ", "iptables-nft: ", "iptables-legacy: "}},
}

// TestLacking writes to a pod on kernels that lack something: with what works, or not at all. STATUS agrees with ADD.
func TestLacking(t *testing.T) {
	for _, kernel := range lackings {
		t.Run(fmt.Sprintf("%s/%s/%s", kernel.lacks, kernel.backend, kernel.profile), func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			profile, _ := testnet.ProfileNamed(kernel.profile)
			before, rules := everything(t, lab), ruleSet(t, profile)
			restore := lacking(t, strings.Fields(kernel.lacks)...)
			lab.InPod(func() { // the lab's pod has IPv6, even if this machine has none
				err := Usable(kernel.backend, rules)
				if (err == nil) != (kernel.err == nil) || err != nil && !IsUnusable(err) {
					t.Errorf("usable: %v", err)
				}
				reported(t, err, kernel.err)
			})
			applied, err := n.Apply(kernel.backend, rules)
			if kernel.err != nil {
				if !IsUnusable(err) {
					t.Errorf("%+v, %v", applied, err)
				}
				reported(t, err, kernel.err)
				restore()
				compareText(t, used(everything(t, lab)), used(before))
				return
			}
			if err != nil || applied.Backend != kernel.want || skippedText(applied) != "" {
				t.Fatalf("%+v, %v", applied, err)
			}
			await.Must(t, n.Check(applied, rules))
			again, err := n.Apply(kernel.backend, rules)
			if err != nil || again.Backend != kernel.want || len(again.Created) > 0 {
				t.Errorf("again: %+v, %v", again, err)
			}
			restore()
			await.Must(t, lab.Use(profile))
			for _, result := range lab.Check() {
				t.Error(result)
			}
			restore = lacking(t, strings.Fields(kernel.lacks)...)
			await.Must(t, n.Remove(applied))
			restore()
			compareText(t, used(everything(t, lab)), used(before))
		})
	}
}

// reported checks that an error has these texts in order. It may name the nftables backend as a remedy only if they do.
func reported(t *testing.T, err error, texts []string) {
	t.Helper()
	if err == nil {
		return
	}
	rest := err.Error()
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		if rest = after; !found {
			t.Errorf("%v\nlacks %q", err, text)
			return
		}
	}
	if strings.Contains(rest, usesNFT) {
		t.Errorf("%v", err)
	}
}
