package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// state is what was measured so far. Without a file it is forgotten in the end.
type state struct {
	seed uint64
	all  []measurement
	file *os.File
}

// openState reads a state and goes on after it, or begins one with a seed.
func openState(path string, seed uint64) (*state, error) {
	s := &state{seed: seed}
	if path == "" {
		return s, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	end := bytes.LastIndexByte(data, '\n') + 1 // a run may have been ended in the middle of a line
	if err := s.read(data[:end]); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it to begin anew", path, err)
	}
	if s.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
		return nil, err
	}
	if err := s.file.Truncate(int64(end)); err != nil {
		return nil, err
	}
	if _, err := s.file.Seek(int64(end), 0); err != nil {
		return nil, err
	}
	if end > 0 {
		return s, nil
	}
	return s, s.write(header{s.seed})
}

// readState reads what was measured; a state that is not there is an error.
func readState(path string) ([]measurement, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var s state
	if err := s.read(data[:bytes.LastIndexByte(data, '\n')+1]); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s.all, nil
}

func (s *state) read(data []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for number := 1; lines.Scan(); number++ {
		var h header
		var m measurement
		err := json.Unmarshal(lines.Bytes(), &m)
		if number == 1 {
			err = json.Unmarshal(lines.Bytes(), &h)
			s.seed = h.Seed
		} else {
			s.all = append(s.all, m)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
	return lines.Err()
}

// has reports whether something of the plan was measured already.
func (s *state) has(m measurement) bool {
	for _, other := range s.all {
		if m.same(other) {
			return true
		}
	}
	return false
}

// add keeps a measurement.
func (s *state) add(m measurement) error {
	s.all = append(s.all, m)
	return s.write(m)
}

func (s *state) write(line any) error {
	if s.file == nil {
		return nil
	}
	data, err := json.Marshal(line)
	if err == nil {
		_, err = s.file.Write(append(data, '\n'))
	}
	return err
}

func (s *state) close() {
	if s.file != nil {
		s.file.Close()
	}
}
