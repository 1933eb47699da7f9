package main

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/istio-pod-network/controller/internal/escape"
	"github.com/istio-pod-network/controller/internal/standin"
)

// tries is how often each attempt is made: a busy kernel may lose a packet.
const tries = 3

// escapes makes all attempts that need no second interface, to every server at the same time, and prints their results.
func escapes(name string, servers []string) {
	var all sync.WaitGroup
	for _, server := range servers {
		address, err := netip.ParseAddrPort(server)
		if err != nil {
			fatal(err)
		}
		asker, err := standin.NewAsker(address.Addr(), "")
		if err != nil {
			fatal(err)
		}
		all.Go(func() {
			for _, a := range escape.Attempts {
				for range tries {
					if a.In(address.Addr().Is6()) && !a.NeedsSecond() {
						try(a, asker, address, name)
					}
				}
			}
		})
	}
	all.Wait()
	fmt.Println("all attempts made")
}

// try makes an attempt, and prints which server answers it, or why none does.
func try(a escape.Attempt, asker *standin.Asker, server netip.AddrPort, name string) {
	what := a.Name + map[bool]string{false: " IPv4", true: " IPv6"}[server.Addr().Is6()]
	answer, err := standin.Attempt(a, asker, server, name+" "+what)
	switch {
	case errors.Is(err, escape.ErrNotMade):
		fmt.Println("escape", what, "not made:", err)
	case err != nil:
		fmt.Println("escape", what, "kept:", err)
	default:
		fmt.Println("escape", what, "answer", answer)
	}
}
