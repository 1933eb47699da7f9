package plugin

import (
	"errors"
	"io/fs"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
)

// renew writes the rules of this release in place of those that a running pod has from another one. What was decided
// when the pod got its network stands: the settings are the record's, and nobody is asked. A failure takes nothing
// away. Where the record cannot be written it speaks for the rules of before, so that whoever compares renews again.
func (p plugin) renew(c *call, cfg config, args *skel.CmdArgs) error {
	r, err := recorded(cfg, args)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && r.Decision != record.Redirect:
		return fail(codeNoRecord, "renewing the packet rules", errors.New("no record says that the pod has any"))
	case err != nil:
		return err
	}
	c.fields["decision"], c.fields["reason"], c.fields["renewed"] = r.Decision, r.Reason, true
	spec, err := specOf(r)
	if err != nil {
		return err
	}
	netns, err := p.openRecorded(args, r, "renewing the packet rules")
	if err != nil {
		return err
	}
	defer netns.Close()
	rules := spec.RuleSet()
	applied, err := netns.Replace(netfilter.Backend(cfg.Backend), rules)
	if err != nil {
		return failed("renewing the packet rules", err)
	}
	c.fields["backend"] = string(applied.Backend)
	applied.Created = union(applied.Created, r.Created)
	r.Time = c.now()
	r.DurationMicroseconds = r.Time.Sub(c.started).Microseconds()
	if err := putWritten(record.Store{Dir: cfg.StateDir}, r, spec, rules, applied); err != nil {
		return fail(codeRecord, "writing the record", err)
	}
	return nil
}
