// Command podprogram is what runs in the pods of the end-to-end tests, in place of an app, a sidecar, and the pause container.
// It is static and needs nothing of its image.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `usage: podprogram pause
       podprogram sidecar            takes outbound TCP on 15001 and inbound TCP on 15006, and says what was asked for
       podprogram app ADDRESS EVERY  dials ADDRESS from its first instruction on, and prints what answers
`

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "pause":
	case len(args) == 1 && args[0] == "sidecar":
		go serve("sidecar-outbound", 15001)
		go serve("sidecar-inbound", 15006)
	case len(args) == 3 && args[0] == "app":
		every, err := time.ParseDuration(args[2])
		if err != nil {
			fatal(err)
		}
		go dial(args[1], every)
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	<-ended
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "podprogram:", err)
	os.Exit(1)
}

// serve answers every connection with its name and the destination that the client had asked for.
func serve(name string, port int) {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		fatal(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			fatal(err)
		}
		go func() {
			defer c.Close()
			fmt.Fprintln(c, name, originalDestination(c.(*net.TCPConn)))
		}()
	}
}

// originalDestination is SO_ORIGINAL_DST of an IPv4 connection (linux/netfilter_ipv4.h), or an error's text.
func originalDestination(c *net.TCPConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return err.Error()
	}
	text := ""
	err = raw.Control(func(fd uintptr) {
		// struct sockaddr_in has the 16 bytes that this call is made for, and the two first say the family.
		address, err := syscall.GetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IP, 80)
		if err != nil {
			text = err.Error()
			return
		}
		b := address.Multiaddr
		text = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])).String()
	})
	if err != nil {
		return err.Error()
	}
	return text
}

// dial connects again and again and prints the first line that it hears.
func dial(address string, every time.Duration) {
	for ; ; time.Sleep(every) {
		c, err := net.DialTimeout("tcp", address, 2*time.Second)
		if err != nil {
			fmt.Println("error", err)
			continue
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		answer, _ := io.ReadAll(c)
		fmt.Printf("answer %s\n", answer)
		_ = c.Close()
	}
}
