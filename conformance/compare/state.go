package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/istio-pod-network/controller/conformance/internal/kept"
)

// measurement is one line of the state: some pods of a way, made at once.
type measurement struct {
	Round  int    `json:"round"`  // from 1
	Way    string `json:"way"`    // its key
	Part   string `json:"part"`   // what was done, one of the constants below
	Number int    `json:"number"` // from 1, among those of the same kind
	Count  int    `json:"pods"`   // how many were made
	outcome
	usage
	Needs *needs `json:"needs,omitempty"` // of partNeeds
}

// The parts: pods one by one, as many as fill a node, what a way needs, and each fault by its own name.
const (
	partSingle = "single"
	partFill   = "fill"
	partNeeds  = "needs"
)

// outcome is what became of pods.
type outcome struct {
	Ready   float64 `json:"ready"`   // seconds from their creation until the last one was ready
	Request float64 `json:"request"` // and until the last one's first request had arrived
	Leaked  int     `json:"leaked"`  // whose app has reached the server past its sidecar
	Stuck   int     `json:"stuck"`   // not ready in the end
	Silent  int     `json:"silent"`  // from which no request has arrived
}

// usage is what they have cost on the node.
type usage struct {
	Runtime  float64 `json:"runtime"`  // processor seconds of programs that the runtime has run and waited for: plugins
	Agent    float64 `json:"agent"`    // processor seconds of the way's agent
	Pods     float64 `json:"inPods"`   // processor seconds of all containers on the node, the agent's included
	Memory   float64 `json:"memory"`   // its resident memory afterwards, MiB
	Requests int     `json:"requests"` // to the API server, of the account of the way's agent and plugin
}

// needs is what a way asks for, as it was seen.
type needs struct {
	Level      string   `json:"level"`      // the strictest level of Pod Security that admits its pods
	Containers []string `json:"containers"` // of its pods, beside the app's and the sidecar's
	Tokens     []string `json:"tokens"`     // files with a credential on the node, outside of pods
}

// same reports whether two measurements are the same one of the plan.
func (m measurement) same(other measurement) bool {
	return m.Round == other.Round && m.Way == other.Way && m.Part == other.Part && m.Number == other.Number
}

// header is the first line of a state.
type header struct {
	Seed uint64 `json:"seed"`
}

// state is what was measured so far.
type state struct {
	seed uint64
	all  []measurement
	path string // "": it is forgotten in the end
}

// openState reads a state and goes on after it, or begins one with a seed.
func openState(path string, seed uint64) (*state, error) {
	h, all, err := kept.Read[header, measurement](path)
	if errors.Is(err, kept.ErrNothing) {
		h = header{seed}
		err = kept.Begin(path, h)
	} else if err != nil {
		err = fmt.Errorf("%w; remove it to begin anew", err)
	}
	return &state{h.Seed, all, path}, err
}

// readState reads what was measured; a state that is not there is an error.
func readState(path string) ([]measurement, error) {
	_, all, err := kept.Read[header, measurement](path)
	return all, err
}

// has reports whether something of the plan was measured already.
func (s *state) has(m measurement) bool { return slices.ContainsFunc(s.all, m.same) }

// add keeps a measurement.
func (s *state) add(m measurement) error {
	s.all = append(s.all, m)
	return kept.Add(s.path, m)
}
