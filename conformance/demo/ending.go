package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// drift deletes a rule, shows that CHECK finds it missing, and repairs it.
func (d *demo) drift() error {
	d.title("CHECK, before and after a rule is deleted by hand")
	if _, err := d.cnitool("check", insideMesh); err != nil {
		return err
	}
	d.verdict(true, "CHECK finds the rules as they were written")
	family := d.opts.families[0]
	deletion, err := kernelRules{d.record.Backend, family}.deletion()
	if err != nil {
		return err
	}
	d.command("ip netns exec pod " + deletion)
	if _, err := inPod(strings.Fields(deletion)...); err != nil {
		return err
	}
	call, err := d.outsideCall()
	if err != nil {
		return err
	}
	landed := d.lab.Run(call, family).Landed
	d.tried++
	d.verdict(landed == testnet.Timeout, "the app's call to %s now lands at: %s; the guard lets none past the sidecar",
		testnet.Expected(d.profile, call, family).Dst, d.landing(landed))
	d.command("ip netns exec node cnitool check " + network + " " + podNetns)
	c := cnitool("check", insideMesh)
	d.printed(c.complaint())
	d.verdict(c.err != nil && strings.Contains(c.complaint(), "missing rule"), "CHECK fails and names the rule")
	return d.mend(family)
}

// mend repairs the rules and proves that.
func (d *demo) mend(family testnet.Family) error {
	d.command("ip netns exec node istio-pod-network        (CNI_COMMAND=ADD again, as the agent repairs a pod)")
	c := repair(d.plugin, d.record, d.result)
	if c.err != nil {
		return fmt.Errorf("repairing: %w: %s%s", c.err, c.stdout, c.stderr)
	}
	d.printed(c.logLine())
	if _, err := d.cnitool("check", insideMesh); err != nil {
		return err
	}
	call, err := d.outsideCall()
	if err != nil {
		return err
	}
	result := d.try(d.profile, call, family)
	d.verdict(result.OK(), "CHECK is content, and the app's call to %s lands at: %s", result.Got.Dst,
		d.landing(result.Got.Landed))
	return nil
}

// outsideCall returns the flow whose rule is deleted, to be run without connections of before.
func (d *demo) outsideCall() (testnet.Flow, error) {
	flows := testnet.Flows(d.profile)
	i := slices.IndexFunc(flows, func(f testnet.Flow) bool { return f.Name == "app-outside" })
	return flows[i], d.lab.Reset()
}

// leave calls DEL and looks for leftovers.
func (d *demo) leave() error {
	d.title("DEL, and nothing is left")
	if _, err := d.cnitool("del", insideMesh); err != nil {
		return err
	}
	absences, err := leftovers(d.record.Backend, d.opts.families)
	if err != nil {
		return err
	}
	d.text("In the pod, and on the node:")
	for _, a := range absences {
		d.verdict(a.left == "", "%s", a)
	}
	d.text("The pod joins the network again, outside the mesh:")
	if err := d.straight(); err != nil {
		return err
	}
	_, err = d.cnitool("del", outsideMesh)
	return err
}

// end prints the last line.
func (d *demo) end(took time.Duration) error {
	seconds := took.Round(100 * time.Millisecond).Seconds()
	fmt.Println()
	if d.wrong > 0 {
		fmt.Println(d.paint(red, fmt.Sprintf("%d things are not as they should be; %d flows tried in %.1f s.", d.wrong,
			d.tried, seconds)))
		return errors.New("see the lines that start with NO")
	}
	fmt.Println(d.paint(green, fmt.Sprintf(
		"All %d flows landed where they should, %s, %s mode, in %.1f s. The namespaces are gone now.",
		d.tried, d.record.Backend, d.opts.mode, seconds)))
	return nil
}
