package netfilter

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// supported drops what the kernel has no family for; each part dropped is named.
func supported(rules redirect.RuleSet) (redirect.RuleSet, []string) {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		return rules, nil
	}
	rules.Addresses = slices.DeleteFunc(slices.Clone(rules.Addresses), func(a redirect.Address) bool { return a.Family == redirect.IPv6 })
	rules.Routes = slices.DeleteFunc(slices.Clone(rules.Routes), func(r redirect.PolicyRoute) bool { return r.Family == redirect.IPv6 })
	rules.Tables = slices.DeleteFunc(slices.Clone(rules.Tables), func(t redirect.Table) bool { return t.Family == redirect.IPv6 })
	return rules, []string{"ip6: the kernel has no IPv6"}
}

// inert is an address, rule or route that does nothing until packet rules use it. Its name identifies it in Applied.
type inert struct {
	name    string
	request rtRequest // zero for the state of the link itself
}

// inerts lists what a rule set needs beside its packet rules.
func inerts(rules redirect.RuleSet) []inert {
	if len(rules.Tables) == 0 {
		return nil
	}
	// A redirected connection is delivered over lo. Runtimes bring it up before any plugin; cnitool does not.
	list := []inert{{name: loopbackUp}}
	for _, a := range rules.Addresses {
		list = append(list, inert{"address " + a.Prefix.String() + " dev lo", addressRequest(a)})
	}
	for _, r := range rules.Routes {
		list = append(list,
			inert{fmt.Sprintf("%s rule fwmark %d lookup %d", r.Family, r.Mark, r.Table), ruleRequest(r)},
			inert{fmt.Sprintf("%s route local default dev lo table %d", r.Family, r.Table), routeRequest(r)})
	}
	return list
}

const loopbackUp = "link lo up"

func (i inert) add(c *rtConn) error {
	if i.name == loopbackUp {
		return setLoopback(true)
	}
	return c.add(i.request)
}

func (i inert) remove(c *rtConn) error {
	if i.name == loopbackUp {
		return setLoopback(false)
	}
	return c.remove(i.request)
}

func (i inert) exists(c *rtConn) (bool, error) {
	if i.name == loopbackUp {
		return loopbackIsUp()
	}
	return c.exists(i.request)
}

// writeRoutes makes addresses and routes exist; those that were not there are added to applied.Created.
func writeRoutes(rules redirect.RuleSet, applied *Applied) error {
	conn, err := dialRoute()
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, item := range inerts(rules) {
		switch err := item.add(conn); {
		case err == nil:
			applied.Created = append(applied.Created, item.name)
		case errors.Is(err, unix.EEXIST):
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENODEV) && strings.HasPrefix(item.name, "ip6"):
			// net.ipv6.conf.*.disable_ipv6: the packet rules are written all the same, for the sysctl can be turned back.
			applied.Skipped = append(applied.Skipped, item.name+": IPv6 is disabled by sysctl")
		default:
			return fmt.Errorf("adding %q: %w", item.name, err)
		}
	}
	return nil
}

// removeRoutes takes out what is named; what is gone already is fine.
func removeRoutes(created []string) error {
	if len(created) == 0 {
		return nil
	}
	conn, err := dialRoute()
	if err != nil {
		return err
	}
	defer conn.Close()
	var errs []error
	for _, item := range slices.Backward(everyInert()) {
		if !slices.Contains(created, item.name) {
			continue
		}
		err := item.remove(conn)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("removing %q: %w", item.name, err))
		}
	}
	return errors.Join(errs...)
}

// everyInert lists whatever a rule set may have needed.
func everyInert() []inert {
	spec := redirect.DefaultSpec()
	spec.Mode = redirect.ModeTProxy
	return inerts(spec.RuleSet())
}

// unneeded names what earlier rules of ours may have needed and these do not.
func unneeded(rules redirect.RuleSet) []string {
	var names []string
	needed := inerts(rules)
	for _, item := range everyInert() {
		if !slices.ContainsFunc(needed, func(i inert) bool { return i.name == item.name }) {
			names = append(names, item.name)
		}
	}
	return names
}

// missingRoutes names what is not there, except what could not be made in the first place.
func missingRoutes(rules redirect.RuleSet, skipped []string) ([]string, error) {
	conn, err := dialRoute()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var missing []string
	for _, item := range inerts(rules) {
		if skips(skipped, item.name) {
			continue
		}
		there, err := item.exists(conn)
		if err != nil {
			return nil, err
		}
		if !there {
			missing = append(missing, "missing "+item.name)
		}
	}
	return missing, nil
}
