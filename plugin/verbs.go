package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

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
	if errors.Is(err, fs.ErrNotExist) {
		return p.checkUnrecorded(c, cfg, pod)
	}
	if err != nil {
		return err
	}
	c.fields["decision"], c.fields["reason"] = r.Decision, r.Reason
	if r.Decision != record.Redirect {
		return nil
	}
	return p.checkRules(args, r)
}

// checkUnrecorded finds out whether a pod without a record should have one.
func (p plugin) checkUnrecorded(c *call, cfg config, pod redirect.Pod) error {
	decision, err := p.decide(c, cfg, pod)
	if err != nil {
		return err
	}
	if decision.Verdict == redirect.Redirect {
		return fail(codeNoRecord, fmt.Sprintf("checking pod %s/%s", pod.Namespace, pod.Name),
			errors.New("it belongs to the mesh, but its ADD never completed: there is no record of it"))
	}
	return nil
}

func (p plugin) checkRules(args *skel.CmdArgs, r record.Record) error {
	spec, netns, err := p.openRecorded(args, r, "checking the packet rules")
	if err != nil {
		return err
	}
	defer netns.Close()
	if err := netns.Check(appliedBy(r), spec.RuleSet()); err != nil {
		return failed("checking the packet rules", err)
	}
	return nil
}

// openRecorded returns the settings of a redirected pod, and opens its network namespace.
func (p plugin) openRecorded(args *skel.CmdArgs, r record.Record, doing string) (redirect.Spec, namespace, error) {
	spec, err := redirect.ParseSpec(r.Spec)
	if err != nil {
		return spec, namespace{}, fail(codeRecord, "reading the record",
			fmt.Errorf("its settings cannot be read: %w", err))
	}
	netns, err := p.openNetNS(args)
	if err == nil && netns.id != r.NetNS {
		netns.Close()
		err = fail(codeDrift, doing,
			fmt.Errorf("this is network namespace %s, the rules were written to %s", netns.id, r.NetNS))
	}
	return spec, netns, err
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
