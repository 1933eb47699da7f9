package netfilter

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// mutant is a rule set without one of its parts.
type mutant struct {
	chain, text, why string // what is missing
	rules            redirect.RuleSet
	inert            string // the name of an address or policy route; "" for a packet rule
	surplus          bool   // it has a surplus part instead of a missing one
	dropLine         bool   // without the second nftables rule of TPROXY, which every RuleSet has
}

func (m mutant) String() string { return m.chain + ": " + m.text }

// mutants returns the rule set without each of its rules of the family in turn, with addresses and policy routes.
func mutants(rules redirect.RuleSet, family redirect.Family, backend Backend) []mutant {
	var all []mutant
	for i, table := range rules.Tables {
		if table.Family != family {
			continue
		}
		for j, chain := range table.Chains {
			for k, r := range chain.Rules {
				lines := r.Lines(table)
				where := redirect.NFTName(table.Kind, chain.Name)
				all = append(all, mutant{chain: where, text: lines[0].Text, why: r.Why, rules: without(rules, i, j, k)})
				if len(lines) > 1 && backend == Nftables {
					all = append(all, mutant{chain: where, text: lines[1].Text, why: lines[1].Why, rules: rules, dropLine: true})
				}
			}
		}
	}
	for _, p := range partsOf(rules) {
		if p.family() == family {
			all = append(all, mutant{chain: "inert", text: p.String(), why: p.String(), rules: rules, inert: p.String()})
		}
	}
	return all
}

// surplus returns the rule set with, in turn, each table and address of a family that the profile does not capture.
// Policy routes are not among them, because they change nothing until a rule sets the mark.
func surplus(rules, both redirect.RuleSet, family redirect.Family) []mutant {
	var all []mutant
	for _, table := range both.Tables {
		if table.Family == family {
			more := rules
			more.Tables = append(slices.Clone(rules.Tables), table)
			all = append(all, mutant{chain: "more", text: string(table.Kind), rules: more, surplus: true})
		}
	}
	for _, address := range both.Addresses {
		if address.Family == family {
			more := rules
			more.Addresses = append(slices.Clone(rules.Addresses), address)
			all = append(all, mutant{chain: "more", text: "address", rules: more, surplus: true})
		}
	}
	return all
}

// without copies what it changes.
func without(rules redirect.RuleSet, table, chain, rule int) redirect.RuleSet {
	rules.Tables = slices.Clone(rules.Tables)
	chains := slices.Clone(rules.Tables[table].Chains)
	chains[chain].Rules = slices.Delete(slices.Clone(chains[chain].Rules), rule, rule+1)
	rules.Tables[table].Chains = chains
	return rules
}

// hunter looks for a flow that shows the removed rule, in one family and with one backend.
type hunter struct {
	*testing.T
	lab     *testnet.Lab
	n       *NetNS
	backend Backend
	family  redirect.Family
	name    string                  // the name of the test case, for messages
	hints   map[string]testnet.Flow // by the removed rule: the flow that showed it in an earlier profile
	seen    map[string]bool         // mutants that were tried already; nil: try them in every profile
	tried   int
}

// pending returns the mutants of a rule set that have to be tried.
func (h *hunter) pending(profile testnet.Profile, rules redirect.RuleSet) []mutant {
	all := mutants(rules, h.family, h.backend)
	if profile.Open(testnet.Family(h.family)) {
		all = surplus(rules, ruleSet(h.T, profile.OfBothFamilies()), h.family)
	}
	if h.seen == nil {
		return all
	}
	all = slices.DeleteFunc(all, func(m mutant) bool { return h.seen[m.String()] })
	for _, m := range all {
		h.seen[m.String()] = true
	}
	return all
}

// TestMutation removes each rule of each profile's rule set in turn. It fails if no flow's outcome changes: then no
// test would notice that the rule is missing. Rules that make no difference are listed in equivalents. If a profile
// does not capture a family, each table of that family is added in turn, and a flow must show it. With the iptables
// backends a rule is removed only from the first profile that has it, and from all profiles with
// ISTIO_POD_NETWORK_MUTATE_ALL=1.
func TestMutation(t *testing.T) {
	all := os.Getenv("ISTIO_POD_NETWORK_MUTATE_ALL") != ""
	var hunts sync.WaitGroup // not t.Parallel: the hunts mostly wait, whatever the number of CPUs
	for _, backend := range backends {
		for _, family := range redirect.Families {
			for lane := range lanes {
				lab, n := newLab(t, testnet.Options{Families: []testnet.Family{testnet.Family(family)}})
				h := &hunter{T: t, lab: lab, n: n, backend: backend, family: family, hints: map[string]testnet.Flow{}}
				if backend != Nftables && !all {
					h.seen = map[string]bool{}
				}
				hunts.Go(func() { h.lane(lane) })
			}
		}
	}
	hunts.Wait()
}

// lanes is how many labs share the profiles. The modes alternate in their list, and each lane gets both.
const lanes = 3

func (h *hunter) lane(lane int) {
	profiles := slices.Clone(testnet.Profiles)
	for _, profile := range testnet.FamilyProfiles {
		if profile.Open(testnet.Family(h.family)) { // the other family has the rules of the profile with both families
			profiles = append(profiles, profile)
		}
	}
	for i, profile := range profiles {
		if i/2%lanes == lane {
			h.profile(profile)
		}
	}
	h.Logf("%s %s: %d rules removed", h.backend, h.family, h.tried)
}

// profile tries the mutants of one profile.
func (h *hunter) profile(profile testnet.Profile) {
	h.name = fmt.Sprintf("%s %s %s", h.backend, h.family, profile.Name)
	rules := ruleSet(h.T, profile)
	pending := h.pending(profile, rules)
	if len(pending) == 0 {
		return
	}
	if err := h.lab.Use(profile); err != nil {
		h.Errorf("%s: %v", h.name, err)
		return
	}
	applied, err := h.n.Apply(h.backend, rules)
	if err != nil {
		h.Errorf("%s: %v", h.name, err)
		return
	}
	defer h.n.Remove(applied)
	for _, m := range pending {
		if err := h.try(profile, rules, m); err != nil {
			h.Errorf("%s without %s: %v", h.name, m, err)
			return
		}
	}
}

// moreHunts is how often a rule that no flow has shown is tried again: an attempt to get around the sidecar depends on
// connection tracking, and does not succeed every time.
const moreHunts = 5

// try checks that the table of equivalents is right about one mutant.
func (h *hunter) try(profile testnet.Profile, rules redirect.RuleSet, m mutant) error {
	if heldByTranslated(m) {
		return nil
	}
	h.tried++
	if err := errors.Join(h.write(m), h.lab.Reset()); err != nil {
		return err
	}
	result, missed := h.hunt(profile, m)
	reason := equivalent(profile, m, h.family)
	for try := 0; try < moreHunts && !missed && reason == ""; try++ {
		if err := h.lab.Reset(); err != nil {
			return err
		}
		result, missed = h.hunt(profile, m)
	}
	switch {
	case !missed && reason == "":
		h.Errorf("%s: no flow misses %s", h.name, m)
	case missed && reason != "" && h.lab.Reset() == nil && len(h.lab.Check()) > 0: // Check waits patiently
		h.Errorf("%s: listed as %q, but missed by a flow: %s: %s", h.name, reason, m, result)
	}
	return h.restore(rules, m)
}

// write writes the mutant into the namespace.
func (h *hunter) write(m mutant) error {
	switch {
	case m.surplus:
		_, err := h.n.Apply(h.backend, m.rules)
		return err
	case m.inert != "":
		if err := h.tables(m.rules); err != nil {
			return err
		}
		return h.n.Within(func() error { return removeParts([]string{m.inert}) })
	case m.dropLine:
		if err := h.tables(m.rules); err != nil {
			return err
		}
		return deleteRule(h.lab, h.family, m.chain, m.why)
	}
	return h.tables(m.rules)
}

// tables writes the packet rules. With nftables it does what the plugin does. With iptables it replaces all tables of
// the family in one execution, because Apply would also list what it replaces.
func (h *hunter) tables(rules redirect.RuleSet) error {
	if h.backend == Nftables {
		_, err := h.n.Apply(Nftables, rules)
		return err
	}
	input := restoreInput(h.family, rules, nil)
	for _, kind := range iptablesTables {
		if !strings.Contains(input, "*"+string(kind)+"\n") {
			input = fmt.Sprintf("*%s\nCOMMIT\n%s", kind, input)
		}
	}
	suffix := strings.TrimPrefix(string(h.backend), "iptables")
	return h.n.Within(func() error {
		cmd := exec.Command(lookPath(iptablesName(h.family) + suffix + "-restore"))
		cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+h.lab.Path)
		cmd.Stdin = strings.NewReader(input)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s\n%s", err, out, input)
		}
		return nil
	})
}

// restore brings back an address or a route, and removes a surplus part. The next mutant replaces the packet rules.
func (h *hunter) restore(rules redirect.RuleSet, m mutant) error {
	switch {
	case m.surplus:
		_, err := h.n.Apply(h.backend, rules)
		return err
	case m.inert != "":
		return h.n.Within(func() error { return writeParts(m.rules, &Applied{}) })
	}
	return nil
}

// hunt runs the flow that showed such a rule before, and then all flows.
func (h *hunter) hunt(profile testnet.Profile, m mutant) (testnet.Result, bool) {
	key := m.String()
	if flow, known := h.hints[key]; known && slices.Contains(testnet.Flows(profile), flow) {
		if r := h.run(profile, flow); !r.OK() {
			return r, true
		}
	}
	wrong := slices.DeleteFunc(h.lab.RunAll(), testnet.Result.OK)
	slices.SortStableFunc(wrong, func(a, b testnet.Result) int { return waits(a) - waits(b) })
	for _, r := range wrong {
		if r = h.run(profile, r.Flow); !r.OK() { // now alone, so that the machine is less busy
			h.hints[key] = r.Flow
			return r, true
		}
	}
	return testnet.Result{}, false
}

// waits is 1 if either outcome is a timeout, and 0 otherwise.
func waits(r testnet.Result) int {
	for _, o := range []testnet.Outcome{r.Got, r.Want} {
		switch o.Landed {
		case testnet.Timeout, testnet.Silence, testnet.Failed, testnet.Unreachable:
			return 1
		}
	}
	return 0
}

func (h *hunter) run(profile testnet.Profile, flow testnet.Flow) testnet.Result {
	family := testnet.Family(h.family)
	return testnet.Result{Flow: flow, Family: family,
		Got: h.lab.RunOnce(flow, family), Want: testnet.Expected(profile, flow, family)}
}

// deleteRule deletes the rules with the comment from a chain.
func deleteRule(lab *testnet.Lab, family redirect.Family, chain, comment string) error {
	out, err := lab.PodCommand("nft", "-a", "list", "chain", family.String(), redirect.TableName, chain).Output()
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		if _, handle, found := strings.Cut(line, "# handle "); found && strings.Contains(line, comment) {
			err := lab.PodCommand("nft", "delete", "rule", family.String(), redirect.TableName, chain, "handle",
				strings.TrimSpace(handle)).Run()
			if err != nil {
				return err
			}
		}
	}
	return nil
}
