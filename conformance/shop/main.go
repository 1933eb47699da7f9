// Command shop is a small shop of four services, to look at a mesh with. One program has a role for each service. A
// service says who called it: what its sidecar has verified of the caller's certificate. `make mesh` and
// docs/getting-started-istio.md use it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: shop serve ROLE [-listen ADDRESS]
              serves a role over HTTP: page, which calls details and reviews; details; reviews, which calls ratings;
              ratings; or visitor, which calls nobody
       shop get URL
              makes one request and prints what came of it; the exit status is 0 if it was answered with 200
       shop visit [-n NUMBER] URL
              makes requests to the page, and draws who called whom, how often, and by which certificates the callees
              know; the exit status is 0 if all were answered, and every call within the shop came with a certificate
`

// patience limits the time of an answer, including all calls that it needs.
const patience = 10 * time.Second

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs the command and returns the exit status.
func run(args []string, out, errs io.Writer) int {
	f := flag.NewFlagSet("shop", flag.ContinueOnError)
	f.SetOutput(errs)
	f.Usage = func() { fmt.Fprint(errs, usage) }
	listen := f.String("listen", ":8080", "")
	n := f.Int("n", 1, "")
	if len(args) < 2 {
		f.Usage()
		return 2
	}
	command, rest := args[0], args[1:]
	if command == "serve" { // the role precedes the flags
		args, rest = rest[:1], rest[1:]
	} else {
		args = nil
	}
	if f.Parse(rest) != nil {
		return 2
	}
	args = append(args, f.Args()...)
	if len(args) != 1 || *n < 1 {
		f.Usage()
		return 2
	}
	switch command {
	case "serve":
		return serve(args[0], *listen, errs)
	case "get":
		return get(args[0], out)
	case "visit":
		return visit(args[0], *n, out)
	}
	f.Usage()
	return 2
}

// serve runs a service until SIGTERM.
func serve(name, listen string, errs io.Writer) int {
	r, known := roles[name]
	if !known {
		fmt.Fprintf(errs, "shop: role: invalid value %q; valid: %s\n", name, strings.Join(slices.Sorted(names()), ", "))
		return 2
	}
	s := service{name: name, role: r, pod: hostname(), version: os.Getenv("SHOP_VERSION"),
		client: &http.Client{Timeout: patience}, address: func(peer string) string { return "http://" + peer + ":8080/" }}
	server := &http.Server{Addr: listen, Handler: s.handler(), ReadHeaderTimeout: patience}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ended.Done()
		_ = server.Shutdown(context.Background()) // waits for running requests, each of which has a limit
	}()
	log.New(errs, "", log.LstdFlags).Printf("%s serves at %s", name, listen)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(errs, "shop:", err)
		return 1
	}
	return 0
}

// hostname returns the pod's name.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// get sends one request.
func get(url string, out io.Writer) int {
	client := http.Client{Timeout: patience}
	response, err := client.Get(url)
	if err != nil {
		fmt.Fprintf(out, "no answer: %v\n", err)
		return 1
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		fmt.Fprintf(out, "no whole answer: %v\n", err)
		return 1
	}
	by := response.Header.Get("Server")
	if by == "" {
		by = "no proxy"
	}
	fmt.Fprintf(out, "%s, from %s: %s\n", response.Status, by, strings.TrimSpace(string(body)))
	if response.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}

// visit sends n requests and draws their calls.
func visit(url string, n int, out io.Writer) int {
	client := http.Client{Timeout: patience}
	all := &picture{}
	for range n {
		all.add(ask(&client, url, http.Header{}))
	}
	all.draw(out)
	if problems := all.problems(); len(problems) > 0 {
		fmt.Fprintf(out, "\nNot as it should be: %s\n", strings.Join(problems, "; "))
		return 1
	}
	return 0
}
