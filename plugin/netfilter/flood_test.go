package netfilter

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

const (
	// flood is how many objects somebody with NET_ADMIN in the pod creates in its network namespace.
	flood = 200_000
	// floodedPeak is how many MiB reading them may use, with the test's binary, of the 128 MiB of the agent's
	// container. The agent runs the plugin with that GOMEMLIMIT.
	floodedPeak   = 40
	floodedMemory = "GOMEMLIMIT=32MiB"
)

// floodedEnv makes TestFloodedLook run. Its value is a flooded in JSON.
const floodedEnv = "ISTIO_POD_NETWORK_FLOODED"

// flooded is a network namespace with more objects than are read, and what reading it returns.
type flooded struct {
	Path           string
	Applied        Applied
	Check, Outline string
	PeakMiB        float64
}

// TestFlooded has the owner of a pod fill its network namespace. Reading it returns an error that names the limit,
// before the reader runs out of memory. If only our own table is full, writing it again helps.
func TestFlooded(t *testing.T) {
	for _, c := range []struct {
		name    string
		backend Backend
		fill    func(*testing.T, *testnet.Lab)
	}{
		{"rules of ours", Nftables, floodRules(redirect.TableName, "nat-istio-output")},
		{"rules of iptables-nft", IptablesNFT, floodRules("nat", "ISTIO_OUTPUT")},
		{"rules of iptables-legacy", IptablesLegacy, floodLegacy},
		{"chains of somebody else", Nftables, floodChains},
		{"routes", Nftables, floodRoutes},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lab, n := newLab(t, testnet.Options{Bare: true})
			rules := named(t, floodedProfile)
			found := flooded{Path: lab.Path, Applied: apply(t, n, c.backend, rules)}
			c.fill(t, lab)
			found.look(t)
			for verb, said := range map[string]string{"Check": found.Check, "CheckOutline": found.Outline} {
				if !strings.Contains(said, "limit of ") {
					t.Errorf("%s says %q", verb, said)
				}
			}
			t.Logf("peak %.1f MiB: %s", found.PeakMiB, found.Check)
			if found.PeakMiB > floodedPeak {
				t.Errorf("it takes %.1f MiB to look, more than %d", found.PeakMiB, floodedPeak)
			}
			if c.name == "rules of ours" {
				mustApply(t, n, c.backend, rules)
			}
		})
	}
}

const floodedProfile = "tproxy-exclude-interfaces"

// look reads the namespace in a process of its own.
func (f *flooded) look(t *testing.T) {
	t.Helper()
	what, err := json.Marshal(f)
	await.Must(t, err)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestFloodedLook$")
	cmd.Env = append(os.Environ(), floodedEnv+"="+string(what), floodedMemory)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	await.Must(t, err)
	await.Must(t, json.NewDecoder(strings.NewReader(string(out))).Decode(f))
}

// TestFloodedLook is what the process of TestFlooded runs.
func TestFloodedLook(t *testing.T) {
	var f flooded
	what := os.Getenv(floodedEnv)
	if what == "" {
		return
	}
	await.Must(t, json.Unmarshal([]byte(what), &f))
	n, err := Open(f.Path)
	await.Must(t, err)
	defer n.Close()
	rules := named(t, floodedProfile)
	f.Check, f.Outline = fmt.Sprint(n.Check(f.Applied, rules)), fmt.Sprint(n.CheckOutline(f.Applied, rules))
	file, err := os.Open("/proc/self/status")
	await.Must(t, err)
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "VmHWM: %f kB", &f.PeakMiB)
	}
	f.PeakMiB /= 1024
	await.Must(t, json.NewEncoder(os.Stdout).Encode(f))
}

// inBatches sends the messages in transactions of a size that nf_tables accepts.
func inBatches(t *testing.T, lab *testnet.Lab, put func(tx *transaction, number int)) {
	t.Helper()
	const batch = 10_000
	for from := 0; from < flood; from += batch {
		tx := &transaction{}
		for i := range batch {
			put(tx, from+i)
		}
		var err error
		lab.InPod(func() { _, err = tx.commit() })
		await.Must(t, err)
	}
}

func floodRules(table, chain string) func(*testing.T, *testnet.Lab) {
	return func(t *testing.T, lab *testnet.Lab) {
		t.Helper()
		inBatches(t, lab, func(tx *transaction, _ int) {
			tx.put("a rule", unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, redirect.IPv4,
				netlink.Text(unix.NFTA_RULE_TABLE, table), netlink.Text(unix.NFTA_RULE_CHAIN, chain))
		})
	}
}

func floodChains(t *testing.T, lab *testnet.Lab) {
	t.Helper()
	shell(t, lab, "nft add table ip others")
	inBatches(t, lab, func(tx *transaction, number int) {
		tx.put("a chain", unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, redirect.IPv4,
			netlink.Text(unix.NFTA_CHAIN_TABLE, "others"), netlink.Text(unix.NFTA_CHAIN_NAME, fmt.Sprint("c", number)))
	})
}

func floodLegacy(t *testing.T, lab *testnet.Lab) {
	t.Helper()
	shell(t, lab, fmt.Sprintf(`export XTABLES_LOCKFILE=%s
		{ echo '*filter'; yes -- '-A INPUT -j ACCEPT' | head -n %d; echo COMMIT; } | iptables-legacy-restore --noflush`,
		lab.Path, flood))
}

func floodRoutes(t *testing.T, lab *testnet.Lab) {
	t.Helper()
	shell(t, lab, fmt.Sprintf(`seq %d |
		awk '{ printf "route add 10.%%d.%%d.%%d/32 dev lo table 500\n", $1 / 65536, $1 / 256 %% 256, $1 %% 256 }' |
		ip -batch -`, flood*6/10))
}

// TestManySets adds many foreign sets to our table. To list a set's elements the kernel searches all sets by name, so
// only the elements of expected sets may be listed.
func TestManySets(t *testing.T) {
	lab, n := newLab(t, testnet.Options{Bare: true})
	rules := ruleSet(t, large(100, 100))
	applied := apply(t, n, Nftables, rules)
	saved, asked := dump, 0
	t.Cleanup(func() { dump = saved })
	dump = func(conn *netlink.Conn, m netlink.Message) ([][]byte, error) {
		if m.Kind == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM {
			asked++
		}
		return saved(conn, m)
	}
	await.Must(t, n.Check(applied, rules))
	ours := asked
	shell(t, lab, `for i in $(seq 50); do echo "add set ip istio-pod-network extra$i { type inet_service; }"; done |
		nft -f -`)
	asked = 0
	if err := n.Check(applied, rules); !IsDrift(err) || !strings.Contains(err.Error(), "unexpected ip set extra1") {
		t.Errorf("Check says %v", err)
	}
	if asked != ours || ours == 0 {
		t.Errorf("the elements of %d sets are read, of %d before", asked, ours)
	}
}

// TestManyInterfaces has more interfaces than noIPv6 checks.
func TestManyInterfaces(t *testing.T) {
	saved, most := ipv6Sysctls, mostInterfaces
	t.Cleanup(func() { ipv6Sysctls, mostInterfaces = saved, most })
	ipv6Sysctls, mostInterfaces = t.TempDir(), 300 // 300 entries need several reads of the directory
	for i := range mostInterfaces + 1 {
		dir := fmt.Sprintf("%s/conf/if%d", ipv6Sysctls, i)
		await.Must(t, os.MkdirAll(dir, 0o700))
		await.Must(t, os.WriteFile(dir+"/disable_ipv6", []byte("1\n"), 0o600))
	}
	if off, err := noIPv6(); err == nil || !strings.Contains(err.Error(), "more than 300 interfaces") {
		t.Errorf("%t, %v", off, err)
	}
	await.Must(t, os.RemoveAll(ipv6Sysctls+"/conf/if7"))
	if off, err := noIPv6(); !off || err != nil {
		t.Errorf("%t, %v", off, err)
	}
	await.Must(t, os.WriteFile(ipv6Sysctls+"/conf/if299/disable_ipv6", []byte("0\n"), 0o600))
	if off, err := noIPv6(); off || err != nil {
		t.Errorf("%t, %v", off, err)
	}
}

// TestOfNode tells failures of the node, with any namespace, from failures to read this namespace.
func TestOfNode(t *testing.T) {
	_, n := newLab(t, testnet.Options{Bare: true})
	rules := named(t, "default")
	applied := apply(t, n, Nftables, rules)
	saved := newNamespace
	t.Cleanup(func() { newNamespace = saved })
	newNamespace = func() (ns.NetNS, error) { return nil, unix.ENOSPC }
	if err := n.Check(applied, rules); !IsOfNode(err) || IsDrift(err) {
		t.Errorf("without a network namespace to write to: %v", err)
	}
	newNamespace = saved
	savedDump := dump
	t.Cleanup(func() { dump = savedDump })
	for refused, ofNode := range map[int]bool{1: true, 3: false} { // 1: writing the expected rules; 3: reading the pod's
		lists := 0
		dump = func(conn *netlink.Conn, m netlink.Message) ([][]byte, error) {
			if m.Kind == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE {
				if lists++; lists == refused {
					return nil, unix.ENOMEM
				}
			}
			return savedDump(conn, m)
		}
		if err := n.Check(applied, rules); !errors.Is(err, unix.ENOMEM) || IsOfNode(err) != ofNode {
			t.Errorf("list %d: %v", refused, err)
		}
	}
}
