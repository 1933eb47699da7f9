// Command podprogram runs in the pods of the end-to-end tests, in place of an app, a sidecar, and the pause container.
// It is static and needs no other file in its image.
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/internal/standin"
)

const usage = `usage: podprogram pause
       podprogram sidecar [-tproxy]
              takes outbound TCP on 15001, inbound TCP on 15006 and DNS on 15053, and answers a line with its name and
              the destination that was asked for; with -tproxy inbound connections come unchanged, which takes NET_ADMIN
       podprogram app [-name NAME] [-every DURATION] [-once] [-serve PORT,...] [-web PORT,...] [-calls PORT]
              tcp:ADDRESS | udp:ADDRESS | http://ADDRESS/PATH ...
              calls the addresses from its first instruction on, says its name, and prints what answers: ADDRESS answer
              TEXT, or ADDRESS error TEXT; with -once each until it has answered; serves lines, or HTTP and gRPC, and
              makes the calls that it is asked for
       podprogram call [-name NAME] [-every DURATION] [-tries NUMBER] tcp:ADDRESS | udp:ADDRESS ...
              calls each address until it answers, or so many times, prints that in the same way, and ends
       podprogram escape [-name NAME] ADDRESS ...
              makes every attempt to get around a sidecar to the TCP servers, with the help of whoever has UDP port 8083
              there, and prints of each: escape ATTEMPT FAMILY answer TEXT, or what kept it; and in the end: all
              attempts made
`

func main() {
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	f := flag.NewFlagSet("podprogram", flag.ExitOnError)
	f.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	transparent := f.Bool("tproxy", false, "")
	every := f.Duration("every", 20*time.Millisecond, "")
	once := f.Bool("once", false, "")
	tries := f.Int("tries", math.MaxInt, "")
	name := f.String("name", "", "")
	serve, web, calls := f.String("serve", "", ""), f.String("web", "", ""), f.String("calls", "", "")
	if len(os.Args) < 2 {
		f.Usage()
		os.Exit(2)
	}
	_ = f.Parse(os.Args[2:]) // it exits on an error
	switch os.Args[1] {
	case "pause":
	case "sidecar":
		s := standin.Sidecar{Outbound: 15001, Inbound: 15006, DNS: 15053, Transparent: *transparent}
		if err := s.Start(fatal); err != nil {
			fatal(err)
		}
	case "app":
		for _, port := range list(*serve) {
			go serveLines(port)
		}
		for _, port := range list(*web) {
			go serveWeb(port, *name)
		}
		if *calls != "" {
			go serveCalls(*calls, *name)
		}
		for _, target := range f.Args() {
			go func() {
				for !call(target, *name) || !*once {
					time.Sleep(*every)
				}
			}()
		}
	case "call":
		for _, target := range f.Args() {
			for try := 1; !call(target, *name) && try < *tries; try++ {
				time.Sleep(*every)
			}
		}
		return
	case "escape":
		escapes(*name, f.Args())
	default:
		f.Usage()
		os.Exit(2)
	}
	<-ended.Done()
}

// serveLines serves lines at a port.
func serveLines(port string) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		fatal(err)
	}
	l, err := standin.Listen(uint16(number), false)
	if err != nil {
		fatal(err)
	}
	fatal(standin.Serve(l, standin.App, standin.Destination))
}

// call calls an address once with the caller's name, prints what it hears, and reports whether that is an answer.
func call(target, name string) bool {
	network, address, _ := strings.Cut(target, ":")
	var answer string
	var err error
	if network == "http" {
		answer, err = get(target)
	} else {
		answer, err = standin.Call{Network: network, Address: address, Name: name}.Make()
	}
	if err != nil {
		fmt.Println(target, "error", err)
		return false
	}
	fmt.Println(target, "answer", answer)
	return true
}

// list returns the items of a list with commas.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "podprogram:", err)
	os.Exit(1)
}
