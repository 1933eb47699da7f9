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

// check serves CHECK: it compares the rules in the kernel with those that ADD wrote according to the record.
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

// checkTimeout bounds how long CHECK waits for the agent: CRI-O runs CHECK for one sandbox after the other.
const checkTimeout = time.Second

// checkUnrecorded decides whether CHECK fails for a pod without a readable record; a failure costs the pod its sandbox.
// unread is the error of reading the record.
//
// What counts is what the pod was when its network was made. Only the annotations that the runtime kept from ADD tell
// that: the agent knows only what the pod and its namespace say now. So the agent is not asked about a pod whose
// annotations do not show that it is in the mesh. If they do, the agent may still exempt the pod by its containers,
// which do not change. If there is a record that this release cannot read, any rules of ours in the namespace are
// enough.
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

// checkAnyRules checks that a mesh pod whose record cannot be read has any rules of ours.
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

// checkRules compares all rules if this release wrote them. Otherwise it compares only what every release writes: an
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
	case unread != nil: // written by another release
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

// anyRules returns the tables that redirect a pod's traffic with any settings, without chains.
func anyRules(r record.Record) (rules redirect.RuleSet) {
	for _, family := range redirect.Captured(r.Families).Of() {
		rules.Tables = append(rules.Tables, redirect.Table{Family: family, Kind: redirect.NAT})
	}
	return rules
}

// specOf returns the settings in the record of a redirected pod. The error is a CNI error 103.
func specOf(r record.Record) (redirect.Spec, error) {
	spec, err := redirect.ParseSpec(r.Spec)
	if err != nil {
		err = fail(codeRecord, "reading the record", fmt.Errorf("its settings cannot be read: %w", err))
	}
	return spec, err
}

// openRecorded opens the network namespace of CNI_NETNS. It returns a CNI error 105 if it is not the record's
// namespace.
func (p plugin) openRecorded(args *skel.CmdArgs, r record.Record, doing string) (namespace, error) {
	netns, err := p.openNetNS(args)
	if err == nil && netns.id != r.NetNS {
		netns.Close()
		err = fail(codeDrift, doing,
			fmt.Errorf("this is network namespace %s, the rules were written to %s", netns.id, r.NetNS))
	}
	return netns, err
}

// recorded returns the attachment's record. If there is none, errors.Is(err, fs.ErrNotExist) holds; any other error is
// a CNI error.
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

// del serves DEL: it removes what ADD made according to the record, and then the record. Without a record it touches
// nothing. It always succeeds: a DEL that fails keeps the pod from ever being deleted.
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

// gc serves GC: it deletes the records of this network whose attachments are not valid any more. Their network
// namespaces are gone too.
func (p plugin) gc(c *call, args *skel.CmdArgs) error {
	cfg, err := c.configure(args)
	if err != nil {
		return fail(types.ErrInvalidNetworkConfig, "reading the configuration", err)
	}
	if cfg.attachments == nil {
		// The specification requires the key, but cnitool omits it. Without it every attachment would look stale.
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

// tell stores why STATUS fails, or "" if it succeeds, for the agent's readiness. A failure to store is only logged.
func (p plugin) tell(c *call, cfg config, why string) {
	if err := (record.Store{Dir: cfg.StateDir}).SetProblem(why); err != nil {
		c.warn("the agent is not told", err)
	}
}

// status serves STATUS: it fails if no ADD at all could be served. A runtime then reports the node as not ready, so a
// missing agent is only logged, unless statusRequiresAgent is set. For the installer it only validates the entry and
// looks for the agent: the installer has other programs and privileges than the runtime, so its backends prove nothing.
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

// serves checks that a backend can write the rules of a pod without settings of its own.
func (p plugin) serves(c *call, cfg config) error {
	spec := cfg.Policy.Redirect
	if spec.Mode == redirect.ModeNone { // a pod in this mode needs no rules, but another pod may have REDIRECT
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

// reaches checks that something listens on the agent's socket.
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
