package testnet

import (
	"fmt"
	"sync"
	"time"
)

// Use makes the sidecar the one that the profile speaks of. Run, RunAll and Check are about this profile.
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

// sameSidecar says whether one sidecar serves both settings.
func (s settings) sameSidecar(t settings) bool {
	return s.tproxy == t.tproxy && s.outboundPort == t.outboundPort && s.inboundPort == t.inboundPort &&
		s.dnsPort == t.dnsPort && s.proxyUID == t.proxyUID && s.proxyGID == t.proxyGID
}

// Run runs one flow and says where it landed.
func (l *Lab) Run(f Flow, family Family) Outcome {
	result := []Result{{Flow: f, Family: family}}
	l.runResults(result, Patience, false)
	return result[0].Got
}

// attempt runs a flow with the sidecar's listener as it is. It calls sent as soon as the first packet is on its way.
func (l *Lab) attempt(f Flow, family Family, patience time.Duration, sent func()) Outcome {
	switch f.Kind {
	case Invalid:
		return l.invalid(f, family, patience)
	case Zones:
		return l.zones(f, family, patience)
	case NoSocket:
		return l.noSocket(f, family, patience)
	}
	c, err := l.newClient(f, family, patience)
	if err != nil {
		sent()
		return failure(err)
	}
	defer c.close()
	c.sent = sent
	return c.exchange(f, family)
}

// RunAll runs all flows of the profile in all families of the lab. It takes some ten milliseconds, and one Patience more
// if anything times out.
func (l *Lab) RunAll() []Result { return l.runFlows(Flows(l.profile)) }

func (l *Lab) runFlows(flows []Flow) []Result {
	var results []Result
	for _, family := range l.options.Families {
		for _, f := range flows {
			if f.In(family) {
				results = append(results, Result{Flow: f, Family: family, Want: l.settings.expect(f, family)})
			}
		}
	}
	l.runResults(results, Patience, true)
	return results
}

// Check runs all flows of the profile and returns those that did not land where they should. What timed out although it
// should not have gets a second try with much more patience, so that a busy machine proves nothing.
func (l *Lab) Check() []Result {
	return l.CheckFlows(Flows(l.profile))
}

// CheckFlows is Check for flows of the caller's choice.
func (l *Lab) CheckFlows(flows []Flow) []Result {
	wrong := onlyWrong(l.runFlows(flows))
	if len(wrong) > 0 {
		l.runResults(wrong, 10*Patience, false)
	}
	return onlyWrong(wrong)
}

func onlyWrong(results []Result) (wrong []Result) {
	for _, r := range results {
		if !r.OK() {
			wrong = append(wrong, r)
		}
	}
	return wrong
}

// runResults fills in what the flows of the results get: first those that want no inbound listener, then the others. With
// overlap the listener comes back as soon as the first ones have sent their SYN, since a SYN is handled within the system
// call that sends it, and the next one comes after a second; so all wait for their time-outs together.
func (l *Lab) runResults(results []Result, patience time.Duration, overlap bool) {
	l.prepareParties(results)
	var down, up []*Result
	for i := range results {
		if results[i].Flow.Kind == ListenerDown {
			down = append(down, &results[i])
		} else {
			up = append(up, &results[i])
		}
	}
	finish := func() {}
	if len(down) > 0 {
		l.mustSetInbound(false)
		finish = l.start(down, patience)
		if !overlap {
			finish()
		}
		l.mustSetInbound(true)
	}
	l.start(up, patience)()
	finish()
}

// mustSetInbound panics where the sidecar's port cannot be had any more: then nothing that follows means anything.
func (l *Lab) mustSetInbound(open bool) {
	if err := l.sidecar.setInbound(open); err != nil {
		panic(fmt.Sprintf("setting the inbound listener to %t: %v", open, err))
	}
}

// concurrent is how many flows are in the air at once: enough that time-outs overlap, few enough for listeners' backlogs.
const concurrent = 64

// start runs flows at the same time. It returns when every one has sent something or has ended; the function that it
// returns waits for all to end.
func (l *Lab) start(results []*Result, patience time.Duration) (finish func()) {
	var sent, ended sync.WaitGroup
	slots := make(chan struct{}, concurrent)
	for _, r := range results {
		slots <- struct{}{}
		sent.Add(1)
		once := sync.OnceFunc(sent.Done)
		ended.Go(func() {
			defer once()
			r.Got = l.attempt(r.Flow, r.Family, patience, once)
			<-slots
		})
	}
	sent.Wait()
	return ended.Wait
}

// prepareParties starts the threads that the flows need, since the map of threads is not for concurrent use.
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
