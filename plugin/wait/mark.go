package wait

import (
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/plugin/record"
)

// verdict is what one look says.
type verdict int

const (
	missing verdict = iota // not yet
	ready
	never   // this proof cannot come any more, another one may
	refused // the pod must not start, whatever the other proof says
)

// finding is a verdict with its reason, a sentence for a person.
type finding struct {
	verdict verdict
	text    string
}

func found(v verdict, format string, args ...any) finding {
	return finding{v, fmt.Sprintf(format, args...)}
}

// reasonNoProxy is redirect.ReasonNoProxy, without its package: the wait starts in every mesh pod.
const reasonNoProxy = "opted-in-no-proxy"

// judge says what the annotations prove to a program in the given network namespace.
func (o options) judge(a annotations, own identity) finding {
	if own.cookie == noCookie {
		return found(never, "this kernel gives a network namespace no cookie (Linux before 5.14, or a sandbox), and without one a mark "+
			"cannot be told from that of a namespace that is gone: use --mode probe")
	}
	status, present := a[o.statusKey]
	switch {
	case !present:
		return found(missing, "annotation %s is absent", o.statusKey)
	case status != o.value && status != record.StatusNotRequired:
		return found(missing, "annotation %s is %q, not %q", o.statusKey, status, o.value)
	}
	if problem := o.tie(a, status, own); problem.text != "" {
		return problem
	}
	if status == o.value {
		return found(ready, "annotation %s is %q for this network namespace", o.statusKey, status)
	}
	if a[record.KeyReason] == reasonNoProxy {
		return found(refused, "the pod opted in, but has no proxy container (%s): no rules were written, and waiting does not help. "+
			"Inject the sidecar (container istio-proxy) or take the opt-in away", reasonNoProxy)
	}
	return found(ready, "nothing to wait for: this pod was left untouched (%s), reason %q", record.StatusNotRequired, a[record.KeyReason])
}

// tie says why the status is not of the given network namespace; no text means that it is.
func (o options) tie(a annotations, status string, own identity) finding {
	mark, present := a[o.netnsKey]
	boot, rest, _ := strings.Cut(mark, "/")
	switch {
	case mark == own.String():
		return finding{}
	case !present:
		return found(missing, "annotation %s is %q, but %s is absent, which says for which network namespace: a status alone may be pasted or stale",
			o.statusKey, status, o.netnsKey)
	case boot == own.boot && rest == own.inode+"/"+noCookie:
		return found(never, "annotation %s is %q, without the cookie that tells this network namespace from one that is gone: use --mode probe",
			o.netnsKey, mark)
	case boot != own.boot:
		return found(missing, "annotation %s is %q for another kernel's network namespace %q, this one is %q: a stale mark, or this is a "+
			"virtual machine's kernel (Kata, gVisor), where only --mode probe works", o.statusKey, status, mark, own)
	}
	return found(missing, "annotation %s is %q for another network namespace %q, this one is %q: a pasted or stale mark",
		o.statusKey, status, mark, own)
}
