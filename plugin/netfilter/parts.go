package netfilter

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// part is something that a rule set needs beside its packet rules: the state of lo, an address, a rule or a route. It
// changes nothing without packet rules. String returns its name in Applied.
type part interface {
	fmt.Stringer
	family() redirect.Family                  // 0: of both families
	add(*netlink.Conn) (made bool, err error) // made is false if it was already there
	remove(*netlink.Conn) error               // returns nil if it is already gone
	exists(*netlink.Conn) (there bool, err error)
}

// Skipped is something that this kernel or host does not support.
type Skipped struct {
	What   string // the name of a family or a part
	Reason string
}

// String returns the form that ParseSkipped parses. The record has it.
func (s Skipped) String() string { return s.What + ": " + s.Reason }

// ParseSkipped parses what String returns.
func ParseSkipped(text string) Skipped {
	what, reason, _ := strings.Cut(text, ": ")
	return Skipped{what, reason}
}

// skips reports whether a family or a part was skipped.
func skips(skipped []Skipped, what fmt.Stringer) bool {
	return slices.ContainsFunc(skipped, func(s Skipped) bool { return s.What == what.String() })
}

// ipv6Addresses exists if the kernel has IPv6, also in a network namespace in which sysctls disable it. It does not
// exist with ipv6.disable=1 on the kernel's command line, or if IPv6 is a module that is not loaded (inet6_init in
// net/ipv6/af_inet6.c). ipv6Sysctls says the same, but each network namespace makes the kernel's look for it slower:
// the names of all namespaces are in one hash chain. A socket would say the same, too. But for a family that it does
// not have the kernel runs modprobe (__sock_create in net/socket.c), which may give the node IPv6. Tests change it.
var ipv6Addresses = "/proc/thread-self/net/if_inet6"

// ipv6Sysctls has the sysctls of the calling thread's network namespace, if the kernel has IPv6. Tests change it.
var ipv6Sysctls = "/proc/sys/net/ipv6"

// disabledBySysctl is the reason why IPv6 is skipped in a network namespace.
const disabledBySysctl = "IPv6 is disabled by sysctl"

// mostInterfaces limits how many interfaces noIPv6 checks: a pod's owner can create any number. Tests change it.
var mostInterfaces = 10_000

// noIPv6 reports whether the calling thread's network namespace cannot send IPv6: the kernel has no IPv6, or
// disable_ipv6 is 1 for all and default and on every interface but lo. Each interface is checked, because "all" only
// has the value that was last written to all of them. ipv6Addresses would not do: an interface that is down has no
// address.
func noIPv6() (bool, error) {
	off, err := allWithout6()
	if err != nil {
		err = fmt.Errorf("asking whether IPv6 is disabled: %w", err)
	}
	return off, err
}

func allWithout6() (bool, error) {
	dir, err := os.Open(ipv6Sysctls + "/conf")
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	for asked := 0; ; {
		names, err := dir.Readdirnames(100)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if asked += len(names); asked > mostInterfaces {
			return false, fmt.Errorf("there are more than %d interfaces", mostInterfaces)
		}
		for _, name := range names {
			value, err := os.ReadFile(fmt.Sprintf("%s/conf/%s/disable_ipv6", ipv6Sysctls, name))
			switch {
			case name == "lo", errors.Is(err, os.ErrNotExist): // it is gone
			case err != nil:
				return false, err
			case strings.TrimSpace(string(value)) == "0":
				return false, nil
			}
		}
	}
}

// supported removes the families that the kernel lacks, and returns their names. If the kernel does not answer, it may
// have IPv6: without rules, what is sent in it would bypass the sidecar.
func supported(rules redirect.RuleSet) (redirect.RuleSet, []Skipped) {
	if _, err := os.Stat(ipv6Addresses); !errors.Is(err, os.ErrNotExist) {
		return rules, nil
	}
	rules.Addresses = without6(rules.Addresses, func(a redirect.Address) redirect.Family { return a.Family })
	rules.Routes = without6(rules.Routes, func(r redirect.PolicyRoute) redirect.Family { return r.Family })
	rules.Tables = without6(rules.Tables, func(t redirect.Table) redirect.Family { return t.Family })
	return rules, []Skipped{{redirect.IPv6.String(), "the kernel has no IPv6"}}
}

func without6[E any](list []E, family func(E) redirect.Family) []E {
	return slices.DeleteFunc(slices.Clone(list), func(e E) bool { return family(e) == redirect.IPv6 })
}

// partsOf returns what a rule set needs beside its packet rules.
func partsOf(rules redirect.RuleSet) []part {
	if len(rules.Tables) == 0 {
		return nil
	}
	// Redirected connections use lo. It is set up before the addresses, of which one is for lo.
	parts := []part{loopbackUp{}}
	for _, a := range rules.Addresses {
		parts = append(parts, address(a))
	}
	for _, r := range rules.Routes {
		parts = append(parts, markRule(r), localRoute(r))
	}
	return parts
}

// writeParts creates addresses and routes, and adds those that did not exist to applied.Created.
func writeParts(rules redirect.RuleSet, applied *Applied) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, p := range partsOf(rules) {
		made, err := p.add(conn)
		switch {
		case made:
			applied.Created = append(applied.Created, p.String())
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENODEV) && p.family() == redirect.IPv6:
			// net.ipv6.conf.*.disable_ipv6 may change later, so the packet rules are written all the same.
			applied.Skipped = append(applied.Skipped, Skipped{p.String(), disabledBySysctl})
		case err != nil:
			return fmt.Errorf("adding %q: %w", p, err)
		}
	}
	return nil
}

// removeParts removes what is named. It is no error if something is already gone.
func removeParts(created []string) error {
	if len(created) == 0 {
		return nil
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer conn.Close()
	var errs []error
	for _, p := range slices.Backward(everyPart()) {
		if !slices.Contains(created, p.String()) {
			continue
		}
		if err := p.remove(conn); err != nil {
			errs = append(errs, fmt.Errorf("removing %q: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// everyPart returns everything that any rule set may need on this kernel.
func everyPart() []part {
	spec := redirect.DefaultSpec()
	spec.Mode = redirect.ModeTProxy
	rules, _ := supported(spec.RuleSet())
	return partsOf(rules)
}

// unneeded returns the names of what earlier rules of ours may have needed and these do not.
func unneeded(rules redirect.RuleSet) []string {
	needed := map[string]bool{}
	for _, p := range partsOf(rules) {
		needed[p.String()] = true
	}
	var names []string
	for _, p := range everyPart() {
		if !needed[p.String()] {
			names = append(names, p.String())
		}
	}
	return names
}

// missingParts describes what does not exist and is not left out.
func missingParts(rules redirect.RuleSet, leftOut func(part) bool) ([]string, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var missing []string
	for _, p := range partsOf(rules) {
		if leftOut(p) {
			continue
		}
		there, err := p.exists(conn)
		if err != nil {
			return nil, err
		}
		if !there {
			missing = append(missing, "missing "+p.String())
		}
	}
	return missing, nil
}
