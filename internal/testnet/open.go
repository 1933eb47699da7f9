package testnet

// Open are connections that stay open, to be used again after the rules have changed. A UDP socket that has received an
// answer is one of them.
type Open struct {
	lab   *Lab
	conns []opened
}

type opened struct {
	Result
	client *client
	close  func()
}

// Open makes the flows in all families of the lab, and keeps those that were answered. It omits flows with several
// connections.
func (l *Lab) Open(flows []Flow) *Open {
	o := &Open{lab: l}
	for _, family := range l.options.Families {
		for _, f := range flows {
			a, escapes := f.Kind.attempt()
			if !f.In(family) || a.Inbound || f.Proto == ICMP || f.As != "" || !escapes && f.Kind != Plain {
				continue
			}
			c := opened{Result: Result{Flow: f, Family: family}}
			l.rounds.during(append(l.servers, l.sidecar.server), func() { o.open(&c) })
			if c.Want = c.Got; c.client != nil {
				o.conns = append(o.conns, c)
			}
		}
	}
	return o
}

func (o *Open) open(c *opened) {
	if a, escapes := c.Flow.Kind.attempt(); escapes {
		if c.client, c.close, c.Got = o.lab.escaped(c.Flow, a, c.Family, Silent, nil); !c.Got.answered() {
			c.close()
			c.client = nil
		}
		return
	}
	client, err := o.lab.newClient(c.Flow, c.Family, Silent)
	if err != nil {
		return
	}
	if c.Got = client.exchange(c.Flow, c.Family); !c.Got.answered() {
		client.close()
		return
	}
	c.client, c.close = client, client.close
}

// answered reports whether there was an answer.
func (o Outcome) answered() bool {
	there := o.Landed.isListener() || o.Landed == AtApp || o.Landed == AtPeer || o.Landed == AtVM
	return there && o.Note != unheard
}

// Ask uses every connection again. Each should land where it landed before.
func (o *Open) Ask() []Result {
	var results []Result
	for _, c := range o.conns {
		o.lab.rounds.during(append(o.lab.servers, o.lab.sidecar.server), func() { c.Got = c.client.answered(c.Flow) })
		results = append(results, c.Result)
	}
	return results
}

// Close resets the connections.
func (o *Open) Close() {
	for _, c := range o.conns {
		c.close()
	}
	o.conns = nil
}
