// Command nodes runs the agents of many nodes in one process. It reads the arguments of each, a JSON list of lists,
// from standard input. SIGTERM ends all of them. If one fails, it ends with status 1.
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
