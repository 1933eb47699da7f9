package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/record"
)

// demo has the state of the demo.
type demo struct {
	*page
	opts           options
	lab            *testnet.Lab
	profile        testnet.Profile
	bridge, plugin object
	tried          int // number of sent packets

	// What ADD of the mesh pod left.
	result string
	record record.Record
	ports  struct{ OutboundPort, InboundPort, DNSPort int }
}

// show runs the demo. It returns an error if the demo cannot run, or if flows do not land where they should.
func show(opts options) error {
	started := time.Now()
	if _, err := exec.LookPath("cnitool"); err != nil {
		return errors.New("there is no cnitool in PATH: run this as `make demo` or scripts/demo.sh")
	}
	if err := prepareNode(); err != nil {
		return err
	}
	lab, err := newLab(opts.families)
	if lab != nil {
		defer lab.Close()
	}
	if err != nil {
		return fmt.Errorf("making the namespaces: %w", err)
	}
	d := &demo{page: newPage(opts.noColor), opts: opts, lab: lab}
	d.profile = testnet.Profile{Name: "demo", Settings: map[string]any{"mode": opts.mode, "dnsCapture": opts.dns}}
	for _, step := range []func() error{d.place, d.outside, d.join, d.flows, d.rules, d.drift, d.leave} {
		if err := step(); err != nil {
			return err
		}
	}
	return d.end(time.Since(started))
}

// place shows the network namespaces and the node's CNI configuration.
func (d *demo) place() error {
	d.title("Two network namespaces and a CNI chain")
	d.text("pod   %s: an app (user 5000) and a stand-in for the sidecar; only lo so far", podNetns)
	d.text("node  %s: here the CNI chain runs, and another pod, a service and a server outside answer", nodeNetns)
	for _, place := range []struct {
		place testnet.Place
		note  string
	}{
		{testnet.Pod, "what the chain will give the pod's eth0"},
		{testnet.Peer, "another pod"},
		{testnet.Service, "an address of a service"},
		{testnet.Outside, "an address outside the cluster"},
		{testnet.Passthrough, "from where the sidecar passes inbound traffic on to the app"},
	} {
		line := fmt.Sprintf("   %-9s", shortName(place.place))
		for _, family := range d.opts.families {
			line += fmt.Sprintf("%-15s", place.place.Addr(family))
		}
		d.text("%s%s", line, place.note)
	}
	d.bridge, d.plugin = conflist(d.opts)
	d.command("cat " + confPath)
	d.printed(`{"cniVersion": "1.1.0", "name": "` + network + `", "plugins": [`)
	d.printed("\t" + string(d.bridge) + ",\n\t" + string(d.plugin) + "]}")
	return writeConflist(d.bridge, d.plugin)
}

// outside is the control: the same pod without the mesh's annotation.
func (d *demo) outside() error {
	d.title("The pod outside the mesh: untouched, and every flow goes straight to its destination")
	if err := d.straight(); err != nil {
		return err
	}
	absences, err := leftovers(d.opts.backend, d.opts.families)
	for _, a := range absences {
		if a.left != "" {
			d.verdict(false, "%s", a)
			return err
		}
	}
	d.verdict(err == nil, "ADD has written no rule, no address, no route and no record")
	return err
}

// straight adds the pod without annotations and runs the flows.
func (d *demo) straight() error {
	if _, err := d.cnitool("add", outsideMesh); err != nil {
		return err
	}
	if err := errors.Join(d.lab.Use(testnet.NoRules), d.lab.Reset()); err != nil {
		return err
	}
	d.control()
	return nil
}

// cnitool prints and runs one verb, which must succeed, and prints the plugin's log line.
func (d *demo) cnitool(verb, podAnnotations string) (call, error) {
	env := ""
	if verb == "add" {
		env = fmt.Sprintf(`CAP_ARGS='{"%s":%s}' `, annotations, podAnnotations)
	}
	d.command(env + "ip netns exec node cnitool " + verb + " " + network + " " + podNetns)
	c := cnitool(verb, podAnnotations)
	if c.err != nil {
		return c, fmt.Errorf("cnitool %s: %w: %s%s", verb, c.err, c.complaint(), d.remedy(verb))
	}
	d.printed(c.logLine())
	return c, nil
}

// remedy returns what to try if the kernel lacks something.
func (d *demo) remedy(verb string) string {
	if verb != "add" {
		return ""
	}
	return fmt.Sprintf("\nIf this kernel lacks something for --backend %s --mode %s, other ones may do.", d.opts.backend,
		d.opts.mode)
}

// join adds the pod with the annotation and shows the decision.
func (d *demo) join() error {
	d.title("The same pod in the mesh: the chain's ADD decides and writes the rules")
	if _, err := d.cnitool("del", outsideMesh); err != nil {
		return err
	}
	c, err := d.cnitool("add", insideMesh)
	if err != nil {
		return err
	}
	d.result = c.stdout
	short, err := shortResult(c.stdout)
	if err != nil {
		return err
	}
	d.printed(short)
	list, err := records()
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return fmt.Errorf("ADD left %d records, want 1", len(list))
	}
	d.record = list[0]
	if err := json.Unmarshal(d.record.Spec, &d.ports); err != nil {
		return fmt.Errorf("reading the record's settings: %w", err)
	}
	d.command("cat " + stateDir + "/pods/*.json        (in part)")
	r := d.record
	d.printed(fmt.Sprintf("pod       %s/%s, sandbox %s", r.Namespace, r.Name, r.ContainerID))
	d.printed(fmt.Sprintf("decision  %s, because: %s", r.Decision, r.Reason))
	d.printed(fmt.Sprintf("backend   %s, rule set %s, %d µs", r.Backend, r.RuleSetHash, r.DurationMicroseconds))
	d.printed("created   " + strings.Join(r.Created, ", "))
	if len(r.Skipped) > 0 {
		d.printed("skipped   " + strings.Join(r.Skipped, ", "))
	}
	d.verdict(r.Decision == record.Redirect, "the pod is redirected")
	return nil
}

func (d *demo) flows() error {
	d.title("Where packets land now, and why")
	if err := errors.Join(d.lab.Use(d.profile), d.lab.Reset()); err != nil {
		return err
	}
	d.table(d.profile)
	return nil
}

// rules prints the rules of one family.
func (d *demo) rules() error {
	d.title("The rules in the pod")
	k := kernelRules{d.record.Backend, d.opts.families[0]}
	listing, err := k.list()
	if err != nil {
		return err
	}
	d.command("ip netns exec pod " + k.listing())
	d.printed(listing)
	if len(d.opts.families) > 1 {
		d.text("IPv6 has the same ones (`%s`); --families 6 shows them.", kernelRules{k.backend, testnet.IPv6}.listing())
	}
	return nil
}
