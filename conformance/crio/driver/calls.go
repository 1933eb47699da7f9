package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/istio-pod-network/controller/conformance/crio/wire"
)

// calls runs plugins and stores the calls.
type calls struct {
	invoke.Exec
	mu   sync.Mutex
	kept []wire.Call
}

func newCalls() *calls {
	return &calls{Exec: &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: os.Stderr}}}
}

// ExecPlugin implements invoke.Exec.
func (c *calls) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	out, err := c.Exec.ExecPlugin(ctx, path, stdin, env)
	call := wire.Call{
		Verb: last(env, "CNI_COMMAND"), Plugin: filepath.Base(path), ContainerID: last(env, "CNI_CONTAINERID"),
		NetNS: last(env, "CNI_NETNS"), Args: last(env, "CNI_ARGS"),
	}
	if len(stdin) > 0 {
		call.Config = stdin
	}
	if err != nil {
		call.Error = err.Error()
	}
	c.mu.Lock()
	c.kept = append(c.kept, call)
	c.mu.Unlock()
	return out, err
}

// last returns the last value of a variable.
func last(env []string, name string) (value string) {
	for _, pair := range env {
		if v, ok := strings.CutPrefix(pair, name+"="); ok {
			value = v
		}
	}
	return value
}

// take returns the calls since it was last called.
func (c *calls) take() []wire.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.kept
	c.kept = nil
	return kept
}
