package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// check compares the kernel's rules with those that the record says ADD wrote.
func (p plugin) check(c *call, args *skel.CmdArgs) error {
	cfg, err := c.configure(args)
	if err != nil {
		return fail(types.ErrInvalidNetworkConfig, "reading the configuration", err)
	}
	pod, _, err := c.podOf(cfg, args)
	if err != nil {
		return err
	}
	r, err := recorded(cfg, args)
	if err != nil {
		return p.checkUnrecorded(c, cfg, args, pod, err)
	}
	c.fields["decision"], c.fields["reason"] = r.Decision, r.Reason
	if r.Decision != record.Redirect {
		return nil
	}
	return p.checkRules(c, args, r)
}

// checkTimeout bounds how long CHECK waits for the agent: CRI-O runs it for one sandbox after the other.
const checkTimeout = time.Second

// checkUnrecorded finds out whether a pod without a record should have one, which costs it its sandbox. What the pod
// was when its network was made counts, and of that the annotations alone tell: those that the runtime has kept of ADD.
// Nobody else is asked about a pod that they do not show to be in the mesh: what the agent knows is what the pod and
// its namespace say now. One that they show the agent may exempt, by its containers, which do not change. Where a
// record is there and cannot be read, as another release's may be, rules of ours speak for the pod. unread is why there
// is none.
func (p plugin) checkUnrecorded(c *call, cfg config, args *skel.CmdArgs, pod redirect.Pod, unread error) error {
	absent := errors.Is(unread, fs.ErrNotExist)
	then := cfg.Policy
	then.Agent = false
	decision, err := redirect.Decide(pod, then)
	shown := decision.Verdict == redirect.Redirect
	if shown {
		cfg.AgentTimeout = min(cfg.AgentTimeout, checkTimeout)
		decision, err = p.decide(c, cfg, pod)
		shown = decision.Verdict != redirect.Untouched
	} else if err == nil {
		c.decided(decision)
	}
	switch {
	case shown && absent:
		why := "it belongs to the mesh, but its ADD never completed: there is no record of it"
		if err != nil {
			why = fmt.Sprintf("%s (%v)", why, err)
		}
		return fail(codeNoRecord, fmt.Sprintf("checking pod %s/%s", pod.Namespace, pod.Name), errors.New(why))
	case shown:
		return p.checkAnyRules(c, args, unread)
	case err != nil:
		c.warn("nothing was compared: its annotations do not show the pod to be in the mesh", err)
	case decision.Verdict == redirect.Ask:
		c.warn("nothing was compared", errors.New("the runtime hands over no annotations (as CRI-O before 1.29), so nobody "+
			"knows any more whether the pod was in the mesh"))
	case !absent:
		c.warn("nothing was compared: the record cannot be read", unread)
	}
	return nil
}

// checkAnyRules looks whether a mesh pod whose record cannot be read has any rules of ours.
func (p plugin) checkAnyRules(c *call, args *skel.CmdArgs, unread error) error {
	netns, err := p.openNetNS(args)
	if err != nil {
		return err
	}
	defer netns.Close()
	if err := netns.CheckOutline(netfilter.Applied{}, redirect.RuleSet{}); err != nil {
		return failed("checking the packet rules", fmt.Errorf("%w; %w", err, unread))
	}
	c.warn("no more was compared than that there are rules: the record cannot be read", unread)
	return nil
}

// checkRules compares all where this release has written the rules, else what does not depend on the release: an
// upgrade is no reason for a pod to lose its sandbox.
func (p plugin) checkRules(c *call, args *skel.CmdArgs, r record.Record) error {
	const doing = "checking the packet rules"
	netns, err := p.openRecorded(args, r, doing)
	if err != nil {
		return err
	}
	defer netns.Close()
	spec, unread := specOf(r)
	rules := spec.RuleSet()
	switch {
	case unread != nil: // another release's
		c.warn("only what every release writes was compared", unread)
		rules = anyRules(r)
	case rules.Hash() == r.RuleSetHash:
		if err := netns.Check(appliedBy(r), rules); err != nil {
			return failed(doing, err)
		}
		return nil
	}
	c.fields["older"] = true
	if err := netns.CheckOutline(appliedBy(r), rules); err != nil {
		return failed(doing, err)
	}
	return nil
}

// anyRules names the tables that divert a pod's traffic whatever its settings are.
func anyRules(r record.Record) (rules redirect.RuleSet) {
	for _, family := range redirect.Captured(r.Families).Of() {
		rules.Tables = append(rules.Tables, redirect.Table{Family: family, Kind: redirect.NAT})
	}
	return rules
}

// specOf returns the settings of a redirected pod.
func specOf(r record.Record) (redirect.Spec, error) {
	spec, err := redirect.ParseSpec(r.Spec)
	if err != nil {
		err = fail(codeRecord, "reading the record", fmt.Errorf("its settings cannot be read: %w", err))
	}
	return spec, err
}

// openRecorded opens the network namespace of a redirected pod, which has to be the record's.
func (p plugin) openRecorded(args *skel.CmdArgs, r record.Record, doing string) (namespace, error) {
	netns, err := p.openNetNS(args)
	if err == nil && netns.id != r.NetNS {
		netns.Close()
		err = fail(codeDrift, doing,
			fmt.Errorf("this is network namespace %s, the rules were written to %s", netns.id, r.NetNS))
	}
	return netns, err
}

// recorded returns the record of the attachment, and a CNI error where it cannot be read; errors.Is(err,
// fs.ErrNotExist) holds where there is none.
func recorded(cfg config, args *skel.CmdArgs) (record.Record, error) {
	r, err := record.Store{Dir: cfg.StateDir}.Get(args.ContainerID, args.IfName)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	code := codeRecord
	if record.IsVersion(err) {
		code = types.ErrTryAgainLater
	}
	return r, fail(code, "reading the record", err)
}

// del takes out what the record says ADD made, and the record. It always succeeds: a DEL that fails keeps a pod from
// ever being deleted. Without a record it touches nothing.
func (p plugin) del(c *call, args *skel.CmdArgs) error {
	cfg, err := c.configure(args)
	if err != nil {
		c.warn("the configuration is invalid", err)
	}
	if pod, _, err := podOf(args.Args); err == nil {
		c.pod(pod)
	}
	store := record.Store{Dir: cfg.StateDir}
	r, err := store.Get(args.ContainerID, args.IfName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		c.warn("reading the record failed; what it says was made stays", err)
	case r.Decision == record.Redirect && args.Netns != "":
		p.remove(c, args, r)
	}
	if err := store.Delete(args.ContainerID, args.IfName); err != nil {
		c.warn("removing the record failed", err)
	}
	return nil
}

func (p plugin) remove(c *call, args *skel.CmdArgs, r record.Record) {
	netns, err := p.open(args.Netns)
	if err != nil {
		if !netfilter.IsGone(err) {
			c.warn("opening CNI_NETNS failed", err)
		}
		return
	}
	defer netns.Close()
	if netns.id != r.NetNS {
		c.warn("the rules stay", fmt.Errorf("CNI_NETNS is network namespace %s, the rules were written to %s", netns.id,
			r.NetNS))
		return
	}
	if err := netns.Remove(appliedBy(r)); err != nil {
		c.warn("removing the packet rules failed", err)
	}
}

// gc drops the records of this network's attachments that are gone. Their network namespaces are gone too.
func (p plugin) gc(c *call, args *skel.CmdArgs) error {
	cfg, err := c.configure(args)
	if err != nil {
		return fail(types.ErrInvalidNetworkConfig, "reading the configuration", err)
	}
	if cfg.attachments == nil {
		// The specification requires the key, cnitool leaves it out: without it everything would look stale.
		c.warn("nothing dropped", errors.New("cni.dev/valid-attachments is missing"))
		return nil
	}
	valid := map[types.GCAttachment]bool{}
	for _, a := range *cfg.attachments {
		valid[a] = true
	}
	removed, err := record.Store{Dir: cfg.StateDir}.GC(cfg.network, func(containerID, ifname string) bool {
		return valid[types.GCAttachment{ContainerID: containerID, IfName: ifname}]
	})
	c.fields["removed"] = len(removed)
	if err != nil {
		return fail(codeRecord, "dropping stale records", err)
	}
	return nil
}

// tell keeps for the agent's readiness what STATUS comes to. That it could not be kept is no reason to fail.
func (p plugin) tell(c *call, cfg config, why string) {
	if err := (record.Store{Dir: cfg.StateDir}).SetProblem(why); err != nil {
		c.warn("the agent is not told", err)
	}
}

// status says whether an ADD could be served at all. A runtime turns a failure into a node that is not ready, so an
// agent that is not there is only logged, unless the operator asked for more. What the installer asks is whether the
// entry can be read: where it runs are other programs and rights than the runtime has.
func (p plugin) status(c *call, args *skel.CmdArgs) error {
	cfg, err := c.configure(args)
	if err != nil {
		return fail(types.ErrInvalidNetworkConfig, "reading the configuration", err)
	}
	if p.getenv(entry.EnvInstaller) == "" {
		if err := p.serves(c, cfg); err != nil {
			return err
		}
	}
	return p.reaches(c, cfg)
}

// serves tries the rules of a pod that says nothing itself.
func (p plugin) serves(c *call, cfg config) error {
	spec := cfg.Policy.Redirect
	if spec.Mode == redirect.ModeNone { // such a pod needs none; another may say REDIRECT
		spec.Mode = redirect.ModeRedirect
	}
	switch err := p.usable(netfilter.Backend(cfg.Backend), spec.RuleSet()); {
	case netfilter.IsUnusable(err):
		failure := fail(types.ErrPluginNotAvailable, "looking for a backend", err)
		p.tell(c, cfg, failure.Msg)
		return failure
	case err != nil:
		c.warn("no backend could be tried", err)
	}
	p.tell(c, cfg, "")
	return nil
}

// reaches asks whether there is somebody at the agent's socket.
func (p plugin) reaches(c *call, cfg config) error {
	if cfg.AgentSocket == "" {
		return nil
	}
	conn, err := net.DialTimeout("unix", cfg.AgentSocket, cfg.AgentTimeout)
	if err == nil {
		return conn.Close()
	}
	if cfg.StatusRequiresAgent {
		return fail(types.ErrPluginNotAvailable, "looking for the agent (statusRequiresAgent)", err)
	}
	c.warn("the agent does not answer; mesh pods will have to wait", errors.New(strings.TrimSpace(err.Error())))
	return nil
}
