package testnet

import (
	"fmt"
	"sync"
)

// Use configures the sidecar for the profile. Run, RunAll and Check use this profile.
func (l *Lab) Use(p Profile) error {
	s := p.settings()
	if l.sidecar != nil {
		if l.settings.sameSidecar(s) {
			l.profile, l.settings = p, s
			return nil
		}
		l.sidecar.stop()
		l.sidecar = nil
	}
	l.profile, l.settings = p, s
	var err error
	l.sidecar, err = l.startSidecar(s)
	return err
}

// sameSidecar reports whether one sidecar serves both settings.
func (s settings) sameSidecar(t settings) bool {
	return s.tproxy == t.tproxy && s.outboundPort == t.outboundPort && s.inboundPort == t.inboundPort &&
		s.dnsPort == t.dnsPort && s.proxyUID == t.proxyUID && s.proxyGID == t.proxyGID
}

// Run runs one flow and returns where it landed. It runs one without an answer a second time, as Check does.
func (l *Lab) Run(f Flow, family Family) Outcome {
	o := l.RunOnce(f, family)
	if o.Landed == Timeout || o.Landed == Silence {
		return l.run(f, family, 10*Silent)
	}
	return o
}

// RunOnce is Run for a caller who repeats a flow himself.
func (l *Lab) RunOnce(f Flow, family Family) Outcome { return l.run(f, family, Silent) }

func (l *Lab) run(f Flow, family Family, silent int) Outcome {
	result := []Result{{Flow: f, Family: family}}
	l.runResults(result, silent)
	return result[0].Got
}

// attempt runs a flow without a change to the sidecar's listener.
func (l *Lab) attempt(f Flow, family Family, silent int) Outcome {
	if a, escapes := f.Kind.attempt(); escapes {
		return l.escape(f, a, family, silent)
	}
	switch f.Kind {
	case Invalid:
		return l.invalid(f, family, silent)
	case Zones:
		return l.zones(f, family, silent)
	case Zone:
		return l.zone(f, family, silent)
	case NoSocket:
		return l.noSocket(f, family, silent)
	}
	c, err := l.newClient(f, family, silent)
	if err != nil {
		return failure(err)
	}
	defer c.close()
	return c.exchange(f, family)
}

// RunAll runs all flows of the profile in all families of the lab. It takes some ten milliseconds.
func (l *Lab) RunAll() []Result { return l.runFlows(Flows(l.profile)) }

func (l *Lab) runFlows(flows []Flow) []Result {
	results := l.wanted(flows, l.settings.expect)
	l.runResults(results, Silent)
	return results
}

// wanted returns the flows in all families of the lab, with their expected outcomes.
func (l *Lab) wanted(flows []Flow, want func(Flow, Family) Outcome) (results []Result) {
	for _, family := range l.options.Families {
		for _, f := range flows {
			if f.In(family) {
				results = append(results, Result{Flow: f, Family: family, Want: want(f, family)})
			}
		}
	}
	return results
}

// Check runs all flows of the profile and returns those that did not land where they should. It runs these a second
// time, with more rounds, because the kernel may drop a packet, for example if a queue is full.
func (l *Lab) Check() []Result {
	return l.CheckFlows(Flows(l.profile))
}

// CheckFlows is Check for the given flows.
func (l *Lab) CheckFlows(flows []Flow) []Result { return onlyFailed(l.TryFlows(flows)) }

// TryFlows runs the given flows as Check does, and returns all of them.
func (l *Lab) TryFlows(flows []Flow) []Result {
	return l.TryWanted(flows, l.settings.expect)
}

// TryWanted is TryFlows for flows with the caller's expectations: with chains of others, the profile does not tell
// them.
func (l *Lab) TryWanted(flows []Flow, want func(Flow, Family) Outcome) []Result {
	return l.try(l.wanted(flows, want))
}

// try runs the flows of results, and those that do not land where they should a second time.
func (l *Lab) try(results []Result) []Result {
	l.runResults(results, Silent)
	failed := onlyFailed(results)
	if len(failed) == 0 {
		return results
	}
	l.runResults(failed, 10*Silent)
	for i := range results {
		if !results[i].OK() {
			results[i], failed = failed[0], failed[1:]
		}
	}
	return results
}

func onlyFailed(results []Result) (failed []Result) {
	for _, r := range results {
		if !r.OK() {
			failed = append(failed, r)
		}
	}
	return failed
}

// runResults sets the outcomes of the results. It first runs the flows that need no inbound listener, or one that is
// not transparent, and then the others.
func (l *Lab) runResults(results []Result, silent int) {
	if !l.options.NoIPv6 { // the writer of the rules may have just added an address
		if err := l.pod.settle(); err != nil {
			panic(err.Error())
		}
	}
	l.prepareParties(results)
	var down, plain, alone, up []*Result
	for i := range results {
		a, _ := results[i].Flow.Kind.attempt()
		switch {
		case results[i].Flow.Kind == ListenerDown:
			down = append(down, &results[i])
		case results[i].Flow.Kind == PlainListener:
			plain = append(plain, &results[i])
		case a.Helped:
			alone = append(alone, &results[i])
		default:
			up = append(up, &results[i])
		}
	}
	l.rounds.during(append(l.servers, l.sidecar.server), func() {
		if len(down) > 0 {
			l.mustSetInbound(false)
			l.runAtOnce(down, silent)
			l.mustSetInbound(true)
		}
		if len(plain) > 0 {
			l.mustSetPlain(true)
			l.runAtOnce(plain, silent)
			l.mustSetPlain(false)
		}
		for _, r := range alone { // each of these needs the port for itself
			r.Got = l.attempt(r.Flow, r.Family, silent)
		}
		l.runAtOnce(up, silent)
	})
}

// mustSetInbound panics if the sidecar's port is not available any more: later results would mean nothing.
func (l *Lab) mustSetInbound(open bool) {
	if err := l.sidecar.setInbound(open); err != nil {
		panic(fmt.Sprintf("setting the inbound listener to %t: %v", open, err))
	}
}

func (l *Lab) mustSetPlain(plain bool) {
	if err := l.sidecar.setPlain(plain); err != nil {
		panic(fmt.Sprintf("setting the inbound listener to plain: %t: %v", plain, err))
	}
}

// concurrent is how many flows run at once. It is less than the listeners' backlogs.
const concurrent = 64

// runAtOnce runs flows at the same time.
func (l *Lab) runAtOnce(results []*Result, silent int) {
	var all sync.WaitGroup
	slots := make(chan struct{}, concurrent)
	for _, r := range results {
		slots <- struct{}{}
		all.Go(func() {
			r.Got = l.attempt(r.Flow, r.Family, silent)
			<-slots
		})
	}
	all.Wait()
}

// prepareParties starts the threads that the flows need, because the map of threads is not safe for concurrent use.
func (l *Lab) prepareParties(results []Result) {
	for _, r := range results {
		if _, err := l.threadOf(r.Flow.From, l.settings); err != nil {
			panic(fmt.Sprintf("starting party %q: %v", r.Flow.From, err))
		}
	}
	if _, err := l.threadOf(FromApp, l.settings); err != nil {
		panic(fmt.Sprintf("starting the app: %v", err))
	}
}
