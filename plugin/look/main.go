// Package look is the program istio-pod-network-look: it reads the packet rules of a pod, and has the kernel tell which
// of them take a packet. The agent runs it for the operator's tool. It enters the pod's network namespace and nothing
// else of the pod, writes no rule of a pod's, and leaves nothing behind: what it adds, the kernel takes away with the
// process.
package look

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/internal/program/flags"
	"github.com/istio-pod-network/controller/plugin/record"
	"golang.org/x/sys/unix"
)

const name = "istio-pod-network-look"

const help = `reads the packet rules of a pod, and has the kernel tell which of them take a packet

The node agent runs it for istio-pod-networkctl; it is not meant to be run by hand.

  rules    prints as JSON the tables, chains and rules of nftables, whoever has written them: without the values that
           they compare with, such as addresses
  trace    sends one packet, and prints as JSON what the kernel says of it: each rule that takes it, and where it ends

For trace it adds to the pod's network namespace a table of nftables of its own, ` + TableName + `, with the
flag owner: the kernel takes the table away when the process ends, however it does. The table marks the packet for
nftables' trace, and drops it behind all other rules, so nobody receives it. It takes Linux 5.12.

Flags, all of which are needed:

  --netns FILE              the pod's network namespace
  --netns-id ID             which one that is, as the pod's record has it

and of trace:

  --from SENDER             uid:N:GROUP, a process of the pod of that user and group; or outside, this process itself
  --proto PROTOCOL          tcp, the first segment of a connection; or udp, an empty datagram
  --to ADDRESS:PORT         whom it is for

Exit status: 0 printed, also if the kernel tells nothing, and then why; 1 something failed; 2 wrong usage.
`

// question is which packet is to be sent.
type question struct {
	netns   string // path
	id      record.NetNS
	outside bool
	uid     uint32
	gid     uint32
	proto   uint8
	to      netip.AddrPort
}

// Main runs the program as this process, and returns the exit status.
func Main() int {
	p := program.New(name, help)
	args := os.Args[1:]
	if p.Answer(args) {
		return program.ExitDone
	}
	var q question
	commands := map[string]func() (any, error){
		"rules": func() (any, error) { return q.rules() },
		"trace": func() (any, error) { return q.trace() },
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return p.Misused(invalid.Text("command", strings.Join(args[:min(1, len(args))], ""), "", "rules, trace"))
	}
	set := q.flags(args[0] == "trace")
	if status, ended := flags.Parse(p, set, "", args[1:]); ended {
		return status
	}
	given, all := 0, 0
	set.Visit(func(*flag.Flag) { given++ })
	set.VisitAll(func(*flag.Flag) { all++ })
	if given != all || set.NArg() > 0 {
		return p.Misused(fmt.Errorf("%d flags are given; valid: each of the %d, and nothing else", given, all))
	}
	told, err := commands[args[0]]()
	if err == nil {
		err = write(p.Stdout, told)
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", name, err)
		return program.ExitFailed
	}
	return program.ExitDone
}

// write writes JSON. It is read by programs: what HTML would take for its own is one character, as anything.
func write(to io.Writer, told any) error {
	e := json.NewEncoder(to)
	e.SetEscapeHTML(false)
	return e.Encode(told)
}

// flags are those of a command.
func (q *question) flags(traces bool) *flag.FlagSet {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	add := func(name, valid string, accept func(string) bool) { flags.Func(set, name, "", valid, accept) }
	add("netns", "the path of a pod's network namespace", func(v string) bool { q.netns = v; return v != "" })
	add("netns-id", "the identity in a record", func(v string) bool { q.id = record.NetNS(v); return v != "" })
	if !traces {
		return set
	}
	add("from", "outside, or uid:N:GROUP", func(v string) bool {
		if q.outside = v == "outside"; q.outside {
			return true
		}
		var rest string
		n, err := fmt.Sscanf(v, "uid:%d:%d%s", &q.uid, &q.gid, &rest)
		return n == 2 && err != nil && rest == "" && q.uid != none && q.gid != none
	})
	add("proto", "tcp, udp", func(v string) bool {
		q.proto = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[v]
		return q.proto != 0
	})
	add("to", "an IP address and a port from 1 to 65535", func(v string) (ok bool) {
		var err error
		q.to, err = netip.ParseAddrPort(v)
		a := q.to.Addr()
		return err == nil && q.to.Port() != 0 && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast()
	})
	return set
}

// none is no user and no group.
const none = 1<<32 - 1
