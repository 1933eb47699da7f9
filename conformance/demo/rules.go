package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// kernelRules lists and deletes the pod's rules with the programs that a person would use. The plugin needs no
// programs.
type kernelRules struct {
	backend string // from the record: nftables, iptables-nft or iptables-legacy
	family  testnet.Family
}

// table returns nft's name of the plugin's table.
func (k kernelRules) table() string {
	if k.family == testnet.IPv6 {
		return "ip6 istio-pod-network"
	}
	return "ip istio-pod-network"
}

// program returns the name of an iptables program, with the suffix "" or "-save".
func (k kernelRules) program(suffix string) string {
	name := k.backend
	if k.family == testnet.IPv6 {
		name = strings.Replace(name, "iptables", "ip6tables", 1)
	}
	return name + suffix
}

// listing returns the command that lists the rules.
func (k kernelRules) listing() string {
	if k.backend == "nftables" {
		return "nft list table " + k.table()
	}
	return k.program("-save")
}

// list returns the rules as these programs print them, without lines that say nothing.
func (k kernelRules) list() (string, error) {
	listing, err := inPod(strings.Fields(k.listing())...)
	if err != nil {
		return "", err
	}
	// iptables: comments, and chains, because their rules name them again.
	return regexp.MustCompile(`(?m)^([#:].*|COMMIT)\n`).ReplaceAllString(listing, ""), nil
}

// deletion returns the command that deletes the rule for the app's calls to the sidecar.
func (k kernelRules) deletion() (string, error) {
	if k.backend != "nftables" {
		return k.program("") + " -w -t nat -D ISTIO_OUTPUT -p tcp -j ISTIO_REDIRECT", nil
	}
	const chain = "nat-istio-output"
	listing, err := inPod("nft", "-a", "list", "chain", strings.Fields(k.table())[0], "istio-pod-network", chain)
	if err != nil {
		return "", err
	}
	rule := regexp.MustCompile(`jump nat-istio-redirect .*# handle (\d+)`).FindStringSubmatch(listing)
	if rule == nil {
		return "", errors.New("the rule for outbound traffic is not where it should be")
	}
	return fmt.Sprintf("nft delete rule %s %s handle %s", k.table(), chain, rule[1]), nil
}

// absence is something that must not exist in the pod or on the node any more.
type absence struct {
	command string
	left    string // what exists all the same
}

func (a absence) String() string {
	if a.left == "" {
		return fmt.Sprintf("%-47s nothing", a.command)
	}
	return fmt.Sprintf("%-47s %s", a.command, a.left)
}

// leftovers looks for everything that ADD makes.
func leftovers(backend string, families []testnet.Family) (absences []absence, err error) {
	look := func(what, command string) {
		listing, failure := inPod(strings.Fields(command)...)
		err = errors.Join(err, failure)
		found := regexp.MustCompile("(?m)^.*"+what+".*$").FindAllString(listing, 3)
		absences = append(absences, absence{command + " | grep '" + what + "'", strings.TrimSpace(strings.Join(found, "; "))})
	}
	if backend != "iptables-legacy" { // with that backend the kernel may have no nftables
		look(".", "nft list ruleset")
	}
	for _, family := range families {
		if backend == "iptables-legacy" {
			look("^-A", kernelRules{backend, family}.program("-save"))
		}
		look("lookup 133", fmt.Sprintf("ip -%d rule", family))
		look("table 133", fmt.Sprintf("ip -%d route show table all", family)) // to show a missing table alone is an error
	}
	look("inet6 ::6/", "ip address show dev lo")
	list, failure := records()
	recorded := absence{command: "ls " + stateDir + "/pods"}
	if len(list) > 0 {
		recorded.left = fmt.Sprintf("%d records", len(list))
	}
	return append(absences, recorded), errors.Join(err, failure)
}
