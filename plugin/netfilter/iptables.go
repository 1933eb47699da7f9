package netfilter

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// tool is one variant of the host's iptables, for one network namespace.
type tool struct {
	backend Backend // IptablesNFT or IptablesLegacy
	ns      *NetNS
	restore map[redirect.Family]string // the path of …-restore; a family without it is skipped
	nsenter []string                   // the command prefix that enters the owning user namespace
}

// toolDirs are searched after PATH: a container runtime's PATH may lack the sbin directories.
var toolDirs = []string{"/usr/sbin", "/sbin", "/usr/local/sbin"}

// noProgramError names a program that is missing on the host.
type noProgramError struct {
	name string
	only bool // the program of the other family is there
}

func (e *noProgramError) Error() string {
	text := "no " + e.name + " on this host"
	if e.only {
		text += ", and IPv6 would go around the sidecar"
	}
	return text
}

// findTool finds the host's programs for one variant of iptables. It fails if those of a needed family are missing.
func (n *NetNS) findTool(way Backend, needed ...redirect.Family) (*tool, error) {
	t := &tool{backend: way, ns: n, restore: map[redirect.Family]string{}}
	for _, family := range redirect.Families {
		t.lookup(family)
	}
	for _, family := range needed {
		if t.restore[family] == "" {
			return nil, &unusableError{way, &noProgramError{t.program(family), t.restore[redirect.IPv4] != ""}}
		}
	}
	return t, t.enterUserNamespace()
}

// program returns the name of …-restore with the variant in it.
func (t *tool) program(family redirect.Family) string {
	return iptablesName(family) + strings.TrimPrefix(string(t.backend), "iptables") + "-restore"
}

// neededFamilies returns the families that need programs in the calling thread's network namespace. Without rules, what
// is sent in a family would bypass the sidecar, unless the namespace has no IPv6.
func neededFamilies() ([]redirect.Family, error) {
	off, err := noIPv6()
	if off || err != nil {
		return []redirect.Family{redirect.IPv4}, err
	}
	return redirect.Families[:], nil
}

// lookup finds the programs of one family: by the name with the variant, or by the plain name if that is the variant.
func (t *tool) lookup(family redirect.Family) {
	name := iptablesName(family)
	t.restore[family] = lookPath(t.program(family))
	if t.restore[family] == "" && wayOf(lookPath(name)) == t.backend {
		t.restore[family] = lookPath(name + "-restore")
	}
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

// wayOf returns the variant of a plain iptables program. The target of its symbolic link tells it without running the
// program; otherwise its --version does (legacy before 1.8 prints no variant).
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

// enterUserNamespace prepares nsenter for a network namespace that another user namespace owns. The kernel accepts an
// owner match only from a process in that user namespace (net/netfilter/xt_owner.c), and a multithreaded process cannot
// enter one (setns(2)).
func (t *tool) enterUserNamespace() error {
	if !t.ns.UserNamespaced() {
		return nil
	}
	path := lookPath("nsenter")
	if path == "" {
		return &unusableError{t.backend, errors.New("no nsenter (util-linux) on this host, and a user namespace owns " +
			"the network namespace")}
	}
	t.nsenter = []string{path, "--user=/proc/self/fd/4", "--"}
	return nil
}

// run runs a program in the network namespace, and by nsenter in its user namespace, and returns its output.
func (t *tool) run(nsenter []string, stdin, program string, args ...string) ([]byte, error) {
	args = slices.Concat(nsenter, []string{program}, args)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	// iptables-legacy would otherwise lock the whole machine. The namespace's own file is a lock for this namespace
	// only, and needs no clean-up. It is opened by its descriptor: root in another user namespace may not be able to
	// reach its path.
	lock, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", t.ns.ns.Fd()))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	cmd.ExtraFiles = []*os.File{lock}
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE=/proc/self/fd/3")
	if len(nsenter) > 0 {
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
		return nil, fmt.Errorf("running %s: %w%s", filepath.Base(program), err, text)
	}
	return out, nil
}

// write writes the rule set: one execution per family. For iptables-legacy it first lists a family that has rules of
// ours. A failure in one family does not keep it from writing the other.
func (t *tool) write(rules redirect.RuleSet, found state) (skipped []Skipped, err error) {
	var failures refusals
	for _, family := range redirect.Families {
		var old held
		if t.backend == IptablesLegacy && slices.Contains(found.ours[t.backend], family) {
			if old, err = t.list(family); err != nil {
				failures = append(failures, err)
				continue
			}
			maps.DeleteFunc(old, func(_ redirect.Kind, chains map[string][]string) bool { return !isOurs(chains) })
		}
		if t.restore[family] == "" {
			if hasFamily(rules, family) {
				skipped = append(skipped, Skipped{family.String(), fmt.Sprintf("no %s-restore on this host, and %s",
					iptablesName(family), disabledBySysctl)})
			}
			rules.Tables = slices.DeleteFunc(slices.Clone(rules.Tables), func(t redirect.Table) bool {
				return t.Family == family
			})
			continue
		}
		if err := t.load(family, restoreInput(family, rules, old)); err != nil {
			failures = append(failures, err)
		}
	}
	if len(failures) > 0 {
		return skipped, failures
	}
	if t.backend == IptablesNFT {
		return skipped, removeCompat(found, rules, nil)
	}
	return skipped, nil
}

func hasFamily(rules redirect.RuleSet, family redirect.Family) bool {
	return slices.ContainsFunc(rules.Tables, func(t redirect.Table) bool { return t.Family == family })
}

// isOurs tells a table with our marker from one with Istio's chains.
func isOurs(chains map[string][]string) bool {
	_, marked := chains[markerChain]
	return marked
}

// load runs iptables-restore, unless the input is empty.
func (t *tool) load(family redirect.Family, input string) error {
	if input == "" {
		return nil
	}
	_, err := t.run(t.nsenter, input, t.restore[family], "--noflush", "--wait", "30")
	return err
}

// held is what the tables of one family have of ours: table -> chain -> rules in the form of iptables-save. A listed
// table has an entry even if nothing in it is ours.
type held map[redirect.Kind]map[string][]string

// list reads our chains, and of other chains the rules that jump to ours and those before them, by one iptables-save.
// It needs no user namespace: only writing an owner match does.
func (t *tool) list(family redirect.Family) (held, error) {
	if t.restore[family] == "" {
		return nil, &unusableError{t.backend, fmt.Errorf("%s-restore was there at ADD and is not now", iptablesName(family))}
	}
	out, err := t.run(nil, "", strings.TrimSuffix(t.restore[family], "restore")+"save")
	if err != nil {
		return nil, err
	}
	all := held{}
	var chains map[string][]string
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0][0] == '*':
			if chains = map[string][]string{}; isCompat(words[0][1:]) {
				all[redirect.Kind(words[0][1:])] = chains
			}
		case strings.HasPrefix(words[0], ":"+istioPrefix):
			chains[words[0][1:]] = nil
		case words[0] == "-A":
			chains[words[1]] = append(chains[words[1]], strings.TrimSpace(line))
		}
	}
	for _, chains := range all {
		maps.DeleteFunc(chains, func(chain string, rules []string) bool {
			if !strings.HasPrefix(chain, istioPrefix) {
				chains[chain] = untilOurs(chain, rules)
			}
			return !strings.HasPrefix(chain, istioPrefix) && len(chains[chain]) == 0
		})
	}
	return all, nil
}

// untilOurs keeps of another chain the rules up to the last one that jumps to ours. Of FORWARD it keeps only the jumps:
// dockerd inserts its own rules at the start whenever it starts, and no rule of ours there redirects anything.
func untilOurs(chain string, rules []string) []string {
	ours := slices.DeleteFunc(slices.Clone(rules), func(r string) bool { return !leadsToOurs(strings.Fields(r)) })
	if len(ours) == 0 || chain == builtinOf[redirect.Forward] {
		return ours
	}
	for !leadsToOurs(strings.Fields(rules[len(rules)-1])) {
		rules = rules[:len(rules)-1]
	}
	return rules
}

// leadsToOurs reports whether a rule jumps to a chain of ours. Its target has no options, so it is the last word.
func leadsToOurs(rule []string) bool {
	verb, chain := rule[len(rule)-2], rule[len(rule)-1]
	return (verb == "-j" || verb == "-g") && strings.HasPrefix(chain, istioPrefix)
}
