package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// group is a part of the table: the names of testnet flows that the demo shows.
type group struct {
	title string
	flows []string
}

// groups returns the parts of the table. Flows that the settings do not have are left out.
func (d *demo) groups() []group {
	groups := []group{
		{"the app calls (any user but the sidecar's)", []string{"app-service", "app-outside", "app-peer", "app-peer-closed",
			"root-peer", "app-pod", "app-loopback", "app-udp-peer", "app-ping-peer"}},
		{"the sidecar calls (user and group 1337)", []string{"proxy-peer", "proxy-outside", "proxy-pod", "proxy-loopback",
			"proxy-passthrough", "proxy-dns-udp"}},
		{"another pod calls", []string{"peer-pod", "peer-pod-9090", "peer-pod-closed", "peer-pod-15021", "peer-pod-15008",
			"peer-pod-udp"}},
	}
	if d.opts.mode == "TPROXY" {
		groups[1] = group{"the sidecar calls (user 0, group 1337)", []string{"proxy-gid-peer", "proxy-gid-pod",
			"proxy-gid-loopback", "proxy-gid-passthrough", "proxy-gid-original-src", "proxy-gid-dns-udp"}}
	}
	if d.opts.dns {
		groups = append(groups, group{"the app asks for names", []string{"app-dns-udp", "app-dns-udp-service",
			"app-dns-udp-loopback", "app-dns-tcp"}})
	}
	return groups
}

// row is a flow with its results, one for each family.
type row []testnet.Result

// rows runs the flows of a group. It repeats a flow with a wrong result, which may come from a busy machine.
func (d *demo) rows(p testnet.Profile, g group) (rows []row) {
	all := testnet.Flows(p)
	for _, name := range g.flows {
		i := slices.IndexFunc(all, func(f testnet.Flow) bool { return f.Name == name })
		if i < 0 || p.Name == testnet.NoRules.Name && all[i].Src == testnet.Passthrough {
			continue // without rules the pod does not have the address ::6
		}
		var r row
		for _, family := range d.opts.families {
			r = append(r, d.try(p, all[i], family))
		}
		rows = append(rows, r)
	}
	return rows
}

func (d *demo) try(p testnet.Profile, f testnet.Flow, family testnet.Family) testnet.Result {
	result := testnet.Result{Flow: f, Family: family, Want: testnet.Expected(p, f, family)}
	for range 3 {
		if result.Got = d.lab.Run(f, family); result.OK() {
			break
		}
	}
	d.tried++
	return result
}

// table prints every flow of the profile and where it landed.
func (d *demo) table(p testnet.Profile) {
	fmt.Println(d.paint(dim, "     "+d.columns("packet to", "landed at", d.headings(), "because")))
	for _, g := range d.groups() {
		fmt.Println("   " + d.paint(bold, g.title))
		for _, r := range d.rows(p, g) {
			d.row(p, r)
		}
	}
}

// headings returns the headings of the destination columns, one for each family.
func (d *demo) headings() []string {
	return []string{"destination seen", "there"}[:len(d.opts.families)]
}

func (d *demo) row(p testnet.Profile, r row) {
	var seen []string
	ok := true
	for _, result := range r {
		seen = append(seen, cmp.Or(result.Got.Dst, "-"))
		ok = ok && result.OK() && result.Got.Landed == r[0].Got.Landed
	}
	flow := r[0].Flow
	line := d.columns(packet(flow), d.landing(r[0].Got.Landed), seen, testnet.Why(p, flow, r[0].Family))
	fmt.Println(d.mark(ok) + line)
	for _, result := range r {
		if !result.OK() {
			d.text("  %s", d.paint(red, fmt.Sprintf("%s: %s; want %s", result.Family, result.Got, result.Want)))
		}
	}
}

// columns formats one line of the table.
func (d *demo) columns(packet, landed string, seen []string, why string) string {
	line := fmt.Sprintf("%-22s %-14s ", packet, landed)
	for i, width := range []int{16, 20}[2-len(seen):] {
		line += fmt.Sprintf("%-*s ", width, seen[i])
	}
	return strings.TrimRight(line+why, " ")
}

// packet describes what is sent. The group's title says who sends it.
func packet(f testnet.Flow) string {
	text := fmt.Sprintf("%s %s", f.Proto, f.To)
	if f.Port != 0 {
		text += fmt.Sprintf(":%d", f.Port)
	}
	if f.From == testnet.FromRoot {
		text += ", as root"
	}
	if f.Src != testnet.Anywhere {
		text += " from " + shortName(f.Src)
	}
	return text
}

// shortName returns a place's name in the table.
func shortName(place testnet.Place) string {
	if place == testnet.Passthrough {
		return "…6" // the end of its addresses
	}
	return string(place)
}

// landing names a listener of the sidecar by its port.
func (d *demo) landing(l testnet.Landing) string {
	switch l {
	case testnet.AtOutbound:
		return fmt.Sprintf("outbound %d", d.ports.OutboundPort)
	case testnet.AtInbound:
		return fmt.Sprintf("inbound %d", d.ports.InboundPort)
	case testnet.AtDNS:
		return fmt.Sprintf("dns %d", d.ports.DNSPort)
	}
	return string(l)
}

// control runs the same flows without rules, and prints one line for each group.
func (d *demo) control() {
	for _, g := range d.groups() {
		ok, counts := true, map[testnet.Landing]int{}
		for _, r := range d.rows(testnet.NoRules, g) {
			for _, result := range r {
				ok = ok && result.OK()
				counts[result.Got.Landed]++
			}
		}
		var landed []string
		for landing, n := range counts {
			landed = append(landed, fmt.Sprintf("%s %d", landing, n))
		}
		slices.Sort(landed)
		fmt.Printf("%s%-45s landed at: %s\n", d.mark(ok), g.title, strings.Join(landed, ", "))
	}
}
