package cni

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/record"
)

// pluginType is the plugin's type in CNI configurations, and the name of its binary and of its nftables tables.
const pluginType = "istio-pod-network"

// node is a test's part of a Kubernetes node.
type node struct {
	testing.TB
	bin    string       // CNI_PATH
	dir    string       // temporary: configuration, state, IPAM data, caches, pinned namespaces
	store  record.Store // the plugin's stateDir
	subnet int          // of the primary network: two tests never share an address
}

var subnets int

func newNode(t testing.TB) *node {
	t.Helper()
	dir := t.TempDir()
	subnets++
	return &node{TB: t, bin: isolated.BinDir(), dir: dir, store: record.Store{Dir: filepath.Join(dir, "state")},
		subnet: subnets}
}

// newNetns makes a pinned network namespace with its own path, and removes it after the test.
func (n *node) newNetns() string {
	n.Helper()
	netnses++
	path := filepath.Join(n.dir, fmt.Sprint("netns-", netnses))
	if err := isolated.NewNetNS(path); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { n.removeNetns(path) })
	return path
}

var netnses int

// removeNetns unpins the namespace, which destroys it. It may be called twice.
func (n *node) removeNetns(path string) {
	n.Helper()
	if err := isolated.RemoveNetNS(path); err != nil {
		n.Error(err)
	}
}

// inNetns runs a program in the network namespace and returns its output.
func (n *node) inNetns(netns string, args ...string) string {
	n.Helper()
	output, err := n.tryInNetns(netns, args...)
	if err != nil {
		n.Fatalf("running %q in %q: %v: %s", strings.Join(args, " "), netns, err, output)
	}
	return output
}

// tryInNetns is inNetns for a program that may fail.
func (n *node) tryInNetns(netns string, args ...string) (string, error) {
	var output []byte
	err := isolated.InNetNS(netns, func() (err error) {
		output, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	})
	return string(output), err
}

// nftRule is a rule in the output of `nft -j -a list ruleset`.
type nftRule struct {
	Family, Table, Chain string
	Handle               int
}

// nftables returns the families that have a table of ours in the network namespace, and our rules.
func (n *node) nftables(netns string) (families []string, rules []nftRule) {
	n.Helper()
	var listing struct {
		Nftables []struct {
			Table *struct{ Family, Name string }
			Rule  *nftRule
		}
	}
	if err := json.Unmarshal([]byte(n.inNetns(netns, "nft", "-j", "-a", "list", "ruleset")), &listing); err != nil {
		n.Fatalf("parsing nft's listing: %v", err)
	}
	for _, object := range listing.Nftables {
		if object.Table != nil && object.Table.Name == pluginType {
			families = append(families, object.Table.Family)
		}
		if object.Rule != nil && object.Rule.Table == pluginType {
			rules = append(rules, *object.Rule)
		}
	}
	slices.Sort(families)
	return families, rules
}

// wantRules fails the test unless the namespace has our tables of both families, with rules.
func (n *node) wantRules(netns string) {
	n.Helper()
	families, rules := n.nftables(netns)
	if strings.Join(families, " ") != "ip ip6" || len(rules) == 0 {
		n.Errorf("nftables has our tables in families %q with %d rules, want [ip ip6] with some", families, len(rules))
	}
}

// wantUntouched fails the test if the namespace has any packet rule.
func (n *node) wantUntouched(netns string) {
	n.Helper()
	if listing := n.inNetns(netns, "nft", "list", "ruleset"); strings.TrimSpace(listing) != "" {
		n.Errorf("nft list ruleset is not empty:\n%s", listing)
	}
}

// records returns the container IDs of the records, sorted.
func (n *node) records() []string {
	n.Helper()
	records, errs := n.store.List()
	if len(errs) > 0 {
		n.Errorf("listing records: %v", errs)
	}
	ids := []string{}
	for _, r := range records {
		ids = append(ids, r.ContainerID)
	}
	return ids
}
