// Command nodes runs the agents of many nodes in one process. Standard input has the arguments of each, as a JSON list
// of lists. It ends by SIGTERM, with all of them, or with status 1 when one has failed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/istio-pod-network/controller/agent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodes:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var agents [][]string
	if err := json.NewDecoder(os.Stdin).Decode(&agents); err != nil {
		return fmt.Errorf("reading the agents' arguments: %w", err)
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var all sync.WaitGroup
	for _, args := range agents {
		all.Go(func() {
			if status := agent.Run(ctx, args, os.Stderr); status != 0 {
				fail(fmt.Errorf("the agent %s has ended with status %d", args[0], status))
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
