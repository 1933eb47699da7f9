package testnet

// Established are connections that were open before there were any rules. The pod's kernel does not track connections
// until a rule needs it, so to the rules their next packets look like new connections.
type Established struct {
	lab   *Lab
	conns []established
}

type established struct {
	flow   Flow
	family Family
	client *client
}

// establishedFlows are the flows of Established.
var establishedFlows = []Flow{
	{Name: "app-peer", From: FromApp, Proto: TCP, To: Peer, Port: 8080},
	{Name: "proxy-peer", From: FromProxyGID, Proto: TCP, To: Peer, Port: 8080},
	{Name: "app-pod", From: FromApp, Proto: TCP, To: Pod, Port: 8080},
	{Name: "app-loopback", From: FromApp, Proto: TCP, To: Loopback, Port: 8080},
	{Name: "peer-pod", From: FromPeer, Proto: TCP, To: Pod, Port: 8080},
	{Name: "peer-pod-15021", From: FromPeer, Proto: TCP, To: Pod, Port: 15021},
}

// Establish opens the connections. Use must have been called before, and the lab must never have had rules.
func (l *Lab) Establish() (*Established, error) {
	e := &Established{lab: l}
	for _, family := range l.options.Families {
		for _, f := range establishedFlows {
			c, err := l.newClient(f, family, Silent)
			if err != nil {
				e.Close()
				return nil, err
			}
			e.conns = append(e.conns, established{f, family, c})
			var o Outcome
			l.rounds.during(l.servers, func() { o = c.exchange(f, family) })
			if o.Landed != placeLanding(f.To) {
				e.Close()
				return nil, &landedError{f, o}
			}
		}
	}
	return e, nil
}

// landedError is the error for a flow that landed elsewhere.
type landedError struct {
	flow Flow
	got  Outcome
}

func (e *landedError) Error() string { return "establishing " + e.flow.Name + ": " + e.got.String() }

// Ask uses every connection again. Captured connections of the app and the peer are expected to be cut, so that their
// next ones use the sidecar; exempt ones are expected to stay. It must be called only once.
func (e *Established) Ask() []Result {
	var results []Result
	for _, c := range e.conns {
		r := Result{Flow: c.flow, Family: c.family, Want: Outcome{Landed: placeLanding(c.flow.To)}}
		if landing, _ := e.lab.settings.listener(c.flow, c.family); landing != direct {
			r.Want.Landed = Refused
			if landing == AtInbound && e.lab.settings.tproxy {
				r.Want.Landed = Timeout // TPROXY finds the app's own socket, which is not transparent, and drops the packet
			}
		}
		e.lab.rounds.during(e.lab.servers, func() {
			if a, err := c.client.ask("who\n"); err != nil {
				r.Got = failure(err)
			} else {
				r.Got.Landed = a.landing
			}
		})
		results = append(results, r)
	}
	return results
}

// Close resets the connections.
func (e *Established) Close() {
	for _, c := range e.conns {
		c.client.close()
	}
	e.conns = nil
}
