package health

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// Limits of concurrent connections.
const (
	maxOwn     = 64  // from the node itself, where the kubelet is
	maxOthers  = 128 // from all other addresses together
	maxAddress = 8   // from each of them
)

// limited is a listener that limits the number of connections. It accepts one too many, too, and closes an older one
// instead: nobody can lock others out by holding connections. Connections from the node itself are counted separately,
// so that the kubelet's probes never compete with a pod's. Of the others, the address with the most connections loses
// one.
type limited struct {
	net.Listener
	open sync.WaitGroup // open connections

	mu     sync.Mutex
	own    []*conn                // the oldest first
	others map[netip.Addr][]*conn // the oldest first
	count  int                    // of all connections in others
}

func newLimited(l net.Listener) *limited {
	return &limited{Listener: l, others: map[netip.Addr][]*conn{}}
}

// conn is one connection. from is the zero Addr for one from the node itself.
type conn struct {
	net.Conn
	of    *limited
	from  netip.Addr
	close func() error // runs only once
}

// Accept returns the next connection.
func (l *limited) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	c := &conn{Conn: accepted, of: l, from: stranger(accepted), close: sync.OnceValue(func() error {
		defer l.open.Done()
		return accepted.Close()
	})}
	for _, old := range l.add(c) {
		old.abort()
	}
	return c, nil
}

// end closes all connections, also those that a server accepted meanwhile, and waits until they are closed. Accept is
// not called any more.
func (l *limited) end() {
	l.mu.Lock()
	left := slices.Concat(append(slices.Collect(maps.Values(l.others)), l.own)...)
	l.mu.Unlock()
	for _, c := range left {
		c.abort()
	}
	l.open.Wait()
}

// stranger returns the address of the peer, or the zero Addr if it is the node itself. A connection from the kubelet to
// an address of the node has that same address as its source, and nobody elsewhere can connect from it.
func stranger(c net.Conn) netip.Addr {
	remote, local := addressOf(c.RemoteAddr()), addressOf(c.LocalAddr())
	if remote == local {
		return netip.Addr{}
	}
	return remote
}

func addressOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// add adds a connection, and returns those that have to be closed for it.
func (l *limited) add(c *conn) (surplus []*conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.from.IsValid() {
		if l.own = append(l.own, c); len(l.own) > maxOwn {
			surplus = append(surplus, l.own[0])
			l.own = l.own[1:]
		}
		return surplus
	}
	l.others[c.from] = append(l.others[c.from], c)
	l.count++
	if len(l.others[c.from]) > maxAddress {
		surplus = append(surplus, l.dropOldest(c.from))
	}
	if l.count > maxOthers {
		surplus = append(surplus, l.dropOldest(l.greediest()))
	}
	return surplus
}

// greediest returns the address with the most connections.
func (l *limited) greediest() (most netip.Addr) {
	for address, conns := range l.others {
		if len(conns) > len(l.others[most]) {
			most = address
		}
	}
	return most
}

func (l *limited) dropOldest(from netip.Addr) *conn {
	oldest := l.others[from][0]
	l.forget(oldest)
	return oldest
}

// forget removes a stranger's connection, if it is still there.
func (l *limited) forget(c *conn) {
	before := l.others[c.from]
	after := without(before, c)
	l.count -= len(before) - len(after)
	if len(after) == 0 {
		delete(l.others, c.from)
	} else {
		l.others[c.from] = after
	}
}

func without(conns []*conn, gone *conn) []*conn {
	for i, c := range conns {
		if c == gone {
			return append(conns[:i:i], conns[i+1:]...)
		}
	}
	return conns
}

// Close closes the connection.
func (c *conn) Close() error {
	c.of.mu.Lock()
	if c.from.IsValid() {
		c.of.forget(c)
	} else {
		c.of.own = without(c.of.own, c)
	}
	c.of.mu.Unlock()
	return c.close()
}

// abort closes a connection with a reset, so that the kernel drops it at once, with all data that has not been sent.
func (c *conn) abort() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.close()
}
