package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/record"
	"golang.org/x/sys/unix"
)

// pluginType is the plugin's name in CNI configurations, of its binary and of its nftables tables.
const pluginType = "istio-pod-network"

// node is what one test has of a Kubernetes node.
type node struct {
	testing.TB
	bin    string       // CNI_PATH
	dir    string       // temporary: configuration, state, IPAM data, caches, pinned namespaces
	store  record.Store // the plugin's stateDir
	subnet int          // of the primary network, so that two tests never share an address
}

var subnets int

func newNode(t testing.TB) *node {
	t.Helper()
	dir := t.TempDir()
	subnets++
	return &node{TB: t, bin: isolated.BinDir(), dir: dir, store: record.Store{Dir: filepath.Join(dir, "state")}, subnet: subnets}
}

// newNetns pins a new network namespace with a path of its own and removes it after the test.
func (n *node) newNetns() string {
	n.Helper()
	file, err := os.CreateTemp(n.dir, "netns-")
	if err != nil {
		n.Fatal(err)
	}
	file.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread changes its namespace and must end with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		result <- unix.Mount(self, file.Name(), "", unix.MS_BIND, "")
	}()
	if err := <-result; err != nil {
		n.Fatalf("making a network namespace: %v", err)
	}
	n.Cleanup(func() { n.removeNetns(file.Name()) })
	return file.Name()
}

// removeNetns unpins the namespace, which destroys it; once more is fine.
func (n *node) removeNetns(path string) {
	n.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		n.Errorf("unmounting %q: %v", path, err)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		n.Errorf("removing %q: %v", path, err)
	}
}

// inNetns runs a program in the network namespace and returns what it prints.
func (n *node) inNetns(netns string, args ...string) string {
	n.Helper()
	out := make(chan []byte)
	fail := make(chan error)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			fail <- err
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			fail <- err
			return
		}
		output, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			fail <- fmt.Errorf("%w: %s", err, output)
			return
		}
		out <- output
	}()
	select {
	case err := <-fail:
		n.Fatalf("running %q in %q: %v", strings.Join(args, " "), netns, err)
		return ""
	case output := <-out:
		return string(output)
	}
}

// nftRule is a rule as `nft -j -a list ruleset` names it.
type nftRule struct {
	Family, Table, Chain string
	Handle               int
}

// nftables lists the families that have a table of ours, and our rules, in the network namespace.
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

// wantUntouched fails the test unless the namespace has no packet rule of anybody.
func (n *node) wantUntouched(netns string) {
	n.Helper()
	if listing := n.inNetns(netns, "nft", "list", "ruleset"); strings.TrimSpace(listing) != "" {
		n.Errorf("nft list ruleset is not empty:\n%s", listing)
	}
}

// records lists the container IDs that have a record, sorted.
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
