package wait

import (
	"fmt"

	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
)

// state is the state of one proof.
type state int

const (
	missing state = iota // may still come
	ready
	never   // cannot come any more, but the other proof may
	refused // the pod must not start, whatever the other proof is
)

// finding is the state of a proof and the reason, a sentence for the log.
type finding struct {
	state state
	text  string
}

func found(v state, format string, args ...any) finding {
	return finding{v, fmt.Sprintf(format, args...)}
}

// readMark says what the annotations prove to a program in the network namespace own. Without a cookie, the mark may be
// that of an earlier namespace with the same inode number, so "initialized" proves nothing. "not-required" is accepted
// all the same: the annotations belong to this one pod, and if no rules were needed in its last sandbox, none are in
// the next.
func (o options) readMark(a annotations, own record.NetNS) finding {
	status, present := a[o.statusKey]
	switch {
	case own == "":
		return found(never, "the own network namespace is unknown, so that no mark can be compared with it")
	case !present:
		return found(missing, "annotation %s is absent", o.statusKey)
	case status != o.value && status != annotation.NotRequired:
		return found(missing, "annotation %s is %q, not %q", o.statusKey, status, o.value)
	case status == o.value && !own.HasCookie():
		return found(never, "this kernel gives a network namespace no cookie (Linux before 5.14, or a sandbox), and "+
			"without one a mark cannot be told from that of a namespace that is gone: use --mode probe")
	}
	if problem := o.otherNetNS(a, status, own); problem.text != "" {
		return problem
	}
	if status == o.value {
		return found(ready, "annotation %s is %q for this network namespace", o.statusKey, status)
	}
	if a[annotation.Reason] == annotation.NoProxy {
		return found(refused, "the pod opted in, but has no proxy container (%s): no rules were written, and waiting does "+
			"not help. Inject the sidecar (container istio-proxy) or take the opt-in away", annotation.NoProxy)
	}
	return found(ready, "nothing to wait for: this pod was left untouched (%s), reason %q",
		annotation.NotRequired, a[annotation.Reason])
}

// otherNetNS says why the status is not about the network namespace own. The text is empty if it is.
func (o options) otherNetNS(a annotations, status string, own record.NetNS) finding {
	text, present := a[o.netnsKey]
	mark := record.NetNS(text)
	switch {
	case mark == own:
		return finding{}
	case !present:
		return found(missing, "annotation %s is %q, but %s is absent, which says for which network namespace: a status "+
			"alone may be pasted or stale", o.statusKey, status, o.netnsKey)
	case mark == own.WithoutCookie():
		return found(never, "annotation %s is %q, without the cookie that tells this network namespace from one that is "+
			"gone: use --mode probe", o.netnsKey, mark)
	case mark.Boot() != own.Boot():
		return found(missing, "annotation %s is %q for another kernel's network namespace %q, this one is %q: a stale "+
			"mark, or this is a virtual machine's kernel (Kata, gVisor), where only --mode probe works",
			o.statusKey, status, mark, own)
	}
	return found(missing, "annotation %s is %q for another network namespace %q, this one is %q: a pasted or stale mark",
		o.statusKey, status, mark, own)
}
