package netfilter

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// tool is one way of the host's iptables, for one network namespace.
type tool struct {
	backend Backend // IptablesNFT or IptablesLegacy
	ns      *NetNS
	restore map[redirect.Family]string // path of …-restore; a family without one is skipped
	command map[redirect.Family]string // path of the command that lists
	nsenter []string                   // prefix that enters the owning user namespace
}

// toolDirs are searched beside PATH: a container runtime's PATH need not have the sbin directories.
var toolDirs = []string{"/usr/sbin", "/sbin", "/usr/local/sbin"}

// findTool chooses among the host's iptables. The legacy way is taken where the namespace already has legacy tables in
// use, or where there is no other.
func (n *NetNS) findTool(want Backend, found state) (*tool, error) {
	ways := []Backend{IptablesNFT, IptablesLegacy}
	switch {
	case want != Iptables:
		ways = []Backend{want}
	case found.legacy:
		ways = []Backend{IptablesLegacy, IptablesNFT}
	}
	for _, way := range ways {
		t := &tool{backend: way, ns: n, restore: map[redirect.Family]string{}, command: map[redirect.Family]string{}}
		for _, family := range redirect.Families {
			t.lookup(family)
		}
		if t.restore[redirect.IPv4] == "" {
			continue
		}
		return t, t.enterUserNamespace()
	}
	return nil, &unusableError{want, errors.New("no iptables-restore on this host; the nftables backend needs none")}
}

// lookup finds the programs of one family: under the name that tells the way, else under the plain name if that is what
// it resolves to.
func (t *tool) lookup(family redirect.Family) {
	name := iptablesName(family)
	suffix := strings.TrimPrefix(string(t.backend), "iptables")
	restore, command := lookPath(name+suffix+"-restore"), lookPath(name+suffix)
	if restore == "" {
		restore, command = lookPath(name+"-restore"), lookPath(name)
		if restore == "" || wayOf(command) != t.backend {
			return
		}
	}
	t.restore[family], t.command[family] = restore, command
}

func lookPath(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range toolDirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

// wayOf tells whether a plain iptables is the nft or the legacy one: by the program that the link leads to, which costs
// no execution, else by what it says of itself (legacy before 1.8 says nothing).
func wayOf(command string) Backend {
	if target, err := filepath.EvalSymlinks(command); err == nil {
		switch base := filepath.Base(target); {
		case strings.Contains(base, "nft"):
			return IptablesNFT
		case strings.Contains(base, "legacy"):
			return IptablesLegacy
		}
	}
	version, err := exec.Command(command, "--version").Output()
	if err == nil && strings.Contains(string(version), "nf_tables") {
		return IptablesNFT
	}
	return IptablesLegacy
}

// enterUserNamespace prepares nsenter for a namespace that a user namespace owns. The kernel takes an owner match only
// from a process in that user namespace, and a multithreaded process cannot enter one itself (setns(2)).
func (t *tool) enterUserNamespace() error {
	if !t.ns.userNamespaced() {
		return nil
	}
	path := lookPath("nsenter")
	if path == "" {
		return &unusableError{t.backend, errors.New("a user namespace owns the network namespace, and nsenter (util-linux) " +
			"is missing on this host; the nftables backend needs no program")}
	}
	t.nsenter = []string{path, "--user=/proc/self/fd/4", "--"}
	return nil
}

// run executes a program inside the namespaces and returns what it prints.
func (t *tool) run(stdin string, args ...string) ([]byte, error) {
	args = append(append([]string{}, t.nsenter...), args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	// iptables-legacy takes a lock for the whole machine otherwise; the namespace's own file is a lock for just this one,
	// and needs no clean-up. By its descriptor: the root of another user namespace need not be able to walk the path.
	lock, err := os.Open(t.ns.ns.Path())
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	cmd.ExtraFiles = []*os.File{lock}
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE=/proc/self/fd/3")
	if len(t.nsenter) > 0 {
		owner, err := t.ns.owner()
		if err != nil {
			return nil, err
		}
		defer owner.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, owner)
	}
	out, err := cmd.Output()
	if err != nil {
		text := ""
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			text = ": " + strings.Join(strings.Fields(string(exit.Stderr)), " ")
		}
		return nil, fmt.Errorf("running %s: %w%s", filepath.Base(args[len(t.nsenter)]), err, text)
	}
	return out, nil
}

// write makes the tables hold the rule set: one execution per family in a namespace that holds nothing of ours.
func (t *tool) write(rules redirect.RuleSet, found state) (skipped []Skipped, err error) {
	for _, family := range redirect.Families {
		if t.restore[family] == "" {
			skipped = append(skipped, Skipped{family.String(), fmt.Sprintf("no %s-restore on this host", iptablesName(family))})
			continue
		}
		held := held{}
		if found.ours[t.backend] {
			if held, err = t.list(family); err != nil {
				return nil, err
			}
		}
		if err := t.load(family, restoreInput(family, rules, held)); err != nil {
			return nil, err
		}
	}
	return skipped, nil
}

// load runs iptables-restore, unless there is nothing to do.
func (t *tool) load(family redirect.Family, input string) error {
	if input == "" {
		return nil
	}
	_, err := t.run(input, t.restore[family], "--noflush", "--wait", "30")
	return err
}

// remove takes out our chains and the jumps to them, family by family.
func (t *tool) remove(found state) error {
	_, err := t.write(redirect.RuleSet{}, found)
	return err
}

// held is what the tables of one family hold of ours: table -> chain -> rules in the form of iptables -S.
type held map[redirect.Kind]map[string][]string

// list reads our chains through go-iptables. The jumps to them from the built-in chains stand under the built-in name.
func (t *tool) list(family redirect.Family) (held, error) {
	ipt, err := t.lister(family)
	if err != nil {
		return nil, err
	}
	all := held{}
	for _, kind := range iptablesTables {
		chains, err := ipt.ListChains(string(kind))
		if err != nil {
			continue // the table does not exist: its module is not loaded and nothing is in it
		}
		for _, chain := range chains {
			builtin := chain == "PREROUTING" || chain == "OUTPUT"
			if !builtin && !strings.HasPrefix(chain, istioPrefix) {
				continue
			}
			lines, err := ipt.List(string(kind), chain)
			if err != nil {
				return nil, fmt.Errorf("listing chain %s of table %s: %w", chain, kind, err)
			}
			all.add(kind, chain, lines, builtin)
		}
	}
	return all, nil
}

// add keeps a chain's rules; of a built-in chain only the jumps to our chains.
func (h held) add(kind redirect.Kind, chain string, lines []string, builtin bool) {
	if h[kind] == nil {
		h[kind] = map[string][]string{}
	}
	if !builtin {
		h[kind][chain] = []string{}
	}
	for _, line := range lines {
		isRule := strings.HasPrefix(line, "-A ")
		if isRule && (!builtin || strings.Contains(line, " -j "+istioPrefix)) {
			h[kind][chain] = append(h[kind][chain], line)
		}
	}
}

// lister makes go-iptables use this way's program. Listing needs no user namespace, unlike writing an owner match.
func (t *tool) lister(family redirect.Family) (*iptables.IPTables, error) {
	protocol := iptables.ProtocolIPv4
	if family == redirect.IPv6 {
		protocol = iptables.ProtocolIPv6
	}
	return iptables.New(iptables.IPFamily(protocol), iptables.Path(t.command[family]), iptables.Timeout(30))
}
