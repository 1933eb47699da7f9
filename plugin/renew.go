package plugin

import (
	"errors"
	"io/fs"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
)

// renew replaces the rules of another release in a running pod by those of this release. The settings are the record's,
// so the decision of the pod's first ADD stays, and the agent is not asked. If it fails, it removes nothing. If only
// the record cannot be written, the record still describes the old rules, and the agent renews the pod again.
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
