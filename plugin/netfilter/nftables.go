package netfilter

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// netlinkTimeout bounds the wait for the kernel's acknowledgements; they are there when the send returns.
const netlinkTimeout = 10 * time.Second

// Sizes of the netlink socket's buffers, in bytes. The kernel refuses a send over SO_SNDBUF, and drops the
// acknowledgements that do not fit SO_RCVBUF: the caller then sees an error although the transaction was committed.
const (
	perMessage = 1024 // an acknowledgement as the kernel accounts it, and more than any message of ours but set elements
	perElement = 64   // a set element of the largest kind
	minBuffer  = 208 << 10
)

// transaction collects what is to be committed at once.
type transaction struct {
	conn     *nftables.Conn
	socket   *netlink.Conn
	elements int
	messages int
}

func newTransaction() *transaction {
	tx := &transaction{}
	// Without AsLasting the socket is made when Flush is called, and so can be sized to what has been collected.
	tx.conn, _ = nftables.New(nftables.WithSockOptions(tx.size))
	return tx
}

func (tx *transaction) size(socket *netlink.Conn) error {
	tx.socket = socket
	if err := socket.SetDeadline(time.Now().Add(netlinkTimeout)); err != nil {
		return err
	}
	bytes := tx.messages*perMessage + tx.elements*perElement
	if bytes <= minBuffer {
		return nil
	}
	return errors.Join(socket.SetReadBuffer(bytes), socket.SetWriteBuffer(bytes))
}

// commit sends everything. sent tells whether the kernel may have committed although there is an error.
func (tx *transaction) commit() (sent bool, err error) {
	err = tx.conn.Flush()
	return err == nil || errors.Is(err, unix.ENOBUFS), err
}

// writeNFT replaces our tables of both families in one transaction.
func writeNFT(rules redirect.RuleSet, found state) error {
	tx := newTransaction()
	for _, family := range redirect.Families {
		if found.tables[family] {
			tx.conn.DelTable(tx.table(family))
		}
	}
	if err := tx.add(rules); err != nil {
		return err
	}
	sent, err := tx.commit()
	if err == nil {
		return nil
	}
	if sent {
		if differences, readErr := compareNFT(rules); readErr == nil && len(differences) == 0 {
			return nil
		}
	}
	for _, missing := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENOENT, unix.ENOPROTOOPT} {
		if errors.Is(err, missing) {
			return &unusableError{Nftables, err}
		}
	}
	return fmt.Errorf("committing the nftables transaction: %w", err)
}

func (tx *transaction) table(family redirect.Family) *nftables.Table {
	tx.messages++
	return &nftables.Table{Name: redirect.TableName, Family: tableFamily(family)}
}

func tableFamily(family redirect.Family) nftables.TableFamily {
	if family == redirect.IPv6 {
		return nftables.TableFamilyIPv6
	}
	return nftables.TableFamilyIPv4
}

// add puts the rule set into the transaction.
func (tx *transaction) add(rules redirect.RuleSet) error {
	tables := map[redirect.Family]*nftables.Table{}
	for _, t := range rules.Tables {
		if tables[t.Family] == nil {
			tables[t.Family] = tx.conn.AddTable(tx.table(t.Family))
		}
		for _, c := range t.Chains {
			if err := tx.addChain(tables[t.Family], t, c); err != nil {
				return fmt.Errorf("rendering chain %q: %w", redirect.NFTName(t.Kind, c.Name), err)
			}
		}
	}
	return nil
}

func (tx *transaction) addChain(table *nftables.Table, t redirect.Table, c redirect.Chain) error {
	chain := &nftables.Chain{Table: table, Name: redirect.NFTName(t.Kind, c.Name)}
	if c.Hook != redirect.Regular {
		chain.Type = nftables.ChainType(redirect.ChainType(t.Kind, c.Hook))
		chain.Hooknum = nftables.ChainHookPrerouting
		if c.Hook == redirect.Output {
			chain.Hooknum = nftables.ChainHookOutput
		}
		chain.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(t.Kind.Priority()))
	}
	tx.conn.AddChain(chain)
	tx.messages++
	for i, r := range c.Rules {
		set := setMaker{tx: tx, table: table, prefix: fmt.Sprintf("%s-%d", chain.Name, i+1)}
		for _, line := range render(t, r, &set) {
			tx.conn.AddRule(&nftables.Rule{
				Table: table, Chain: chain, Exprs: line.exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, line.comment),
			})
			tx.messages++
		}
		if set.err != nil {
			return set.err
		}
	}
	return nil
}

// removeNFT deletes our tables of both families.
func removeNFT() error {
	found, err := scanNFT()
	if err != nil {
		return err
	}
	tx := newTransaction()
	for family := range found.tables {
		tx.conn.DelTable(tx.table(family))
	}
	_, err = tx.commit()
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
