package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/istio-pod-network/controller/conformance/internal/kept"
)

// measurement is one line of the state: some pods of a way, created at once.
type measurement struct {
	Round  int    `json:"round"`  // from 1
	Way    string `json:"way"`    // its key
	Part   string `json:"part"`   // what was done: one of the constants below, or a fault's name
	Number int    `json:"number"` // from 1, among measurements of the same part
	Count  int    `json:"pods"`   // how many pods were created
	outcome
	usage
	Needs *needs `json:"needs,omitempty"` // of partNeeds
}

// Parts: single pods, as many pods as fill a node, and what a way needs. Each fault is a part with its own name.
const (
	partSingle = "single"
	partFill   = "fill"
	partNeeds  = "needs"
)

// outcome is what became of the pods.
type outcome struct {
	Ready   float64 `json:"ready"`   // seconds from their creation until the last one was ready
	Request float64 `json:"request"` // seconds until the last one's first request arrived
	Leaked  int     `json:"leaked"`  // pods whose app reached the server directly, not through the sidecar
	Stuck   int     `json:"stuck"`   // pods that never became ready
	Silent  int     `json:"silent"`  // pods from which no request arrived
}

// usage is what they cost on the node.
type usage struct {
	Runtime  float64 `json:"runtime"`  // processor seconds of programs that the runtime has waited for: plugins, runc
	Agent    float64 `json:"agent"`    // processor seconds of the way's agent
	Pods     float64 `json:"inPods"`   // processor seconds of all containers on the node, including the agent's
	Memory   float64 `json:"memory"`   // the agent's resident memory afterwards, MiB
	Requests int     `json:"requests"` // requests to the API server with the account of the way's agent and plugin
}

// needs is what a way was seen to require.
type needs struct {
	Level      string   `json:"level"`      // the strictest level of Pod Security that admits its pods
	Containers []string `json:"containers"` // containers of its pods, without the app and the sidecar
	Tokens     []string `json:"tokens"`     // files with a credential on the node, outside pods
}

// same reports whether both are the same measurement of the plan.
func (m measurement) same(other measurement) bool {
	return m.Round == other.Round && m.Way == other.Way && m.Part == other.Part && m.Number == other.Number
}

// header is the first line of a state.
type header struct {
	Seed uint64 `json:"seed"`
}

// state has the measurements so far.
type state struct {
	seed uint64
	all  []measurement
	path string // of the file; "" if there is none
}

// openState reads a state to continue it, or begins one with a seed.
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

// readState reads the measurements. It returns an error if there is no state.
func readState(path string) ([]measurement, error) {
	_, all, err := kept.Read[header, measurement](path)
	return all, err
}

// has reports whether the measurement was made already.
func (s *state) has(m measurement) bool { return slices.ContainsFunc(s.all, m.same) }

// add stores a measurement.
func (s *state) add(m measurement) error {
	s.all = append(s.all, m)
	return kept.Add(s.path, m)
}
