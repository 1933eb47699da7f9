// Command driver calls CNI plugins as CRI-O does, with the same libcni. It loads the networks of a directory, and makes
// and stops the sandboxes of pods, which here are only pinned network namespaces. It continues with the sandboxes of an
// earlier process. Behaviour and libcni depend on CRI-O's version, see package crio. Package wire has the protocol.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/istio-pod-network/controller/conformance/crio/wire"
)

func main() {
	if err := serve(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "driver:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("%d arguments, want the configuration alone", len(args))
	}
	var c wire.Config
	if err := json.Unmarshal([]byte(args[0]), &c); err != nil {
		return fmt.Errorf("the configuration %q: %w", args[0], err)
	}
	r, err := start(ctx, c)
	if err != nil {
		return err
	}
	requests, responses := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	for {
		var q wire.Request
		if err := requests.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := responses.Encode(r.answer(ctx, q)); err != nil {
			return err
		}
	}
}

// answer executes a request.
func (r *runtime) answer(ctx context.Context, q wire.Request) (a wire.Response) {
	var err error
	switch q.Do {
	case wire.Network:
		a.Network = r.network()
	case wire.Run:
		r.garbage.RLock()
		a.Sandbox, err = r.run(ctx, q.Pod)
		r.garbage.RUnlock()
	case wire.Stop:
		r.garbage.RLock()
		err = r.stop(ctx, q.ID)
		r.garbage.RUnlock()
	case wire.Sandboxes:
		a.Sandboxes = r.list()
	case wire.Calls:
		a.Calls = r.calls.take()
	default:
		err = fmt.Errorf("there is no request %q", q.Do)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}
