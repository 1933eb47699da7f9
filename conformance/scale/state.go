package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// state is a file with what was measured so far, so that a run that was ended goes on: a line that says of what, and
// one for each size.
type state struct {
	path string // "": nothing is kept
}

// begin is its first line.
type begin struct {
	Options settings `json:"options"`
	Sizes   []int    `json:"sizes"`
}

// settings are the options as they are written.
type settings struct {
	Pods        int    `json:"pods"`
	Mesh        int    `json:"mesh"`
	Namespaces  int    `json:"namespaces"`
	Each        int    `json:"each"`
	Churn       int    `json:"churn"`
	Rate        int    `json:"rate"`
	Idle        string `json:"idle"`
	Selection   string `json:"selection"`
	APIPriority bool   `json:"apiPriority"`
}

// String is the line above a table.
func (s settings) String() string {
	priority := "a level of their own"
	if !s.APIPriority {
		priority = "no level of their own"
	}
	return fmt.Sprintf("%d pods on a node, %d of them in the mesh; %d namespaces for each node; selection: %s; agents "+
		"have %s at the API server", s.Pods, s.Mesh, s.Namespaces, s.Selection, priority)
}

func (o options) settings() settings {
	return settings{o.perNode, o.meshed, o.namespaces, o.each, o.churn, o.rate, o.idle.String(), o.selection,
		o.apiPriority}
}

// open returns what was measured of the same by a run that did not come to its end, and begins anew otherwise.
func (s state) open(now begin) ([]size, error) {
	if s.path == "" {
		return nil, nil
	}
	if was, done, err := s.read(); err == nil && was.Options == now.Options && slices.Equal(was.Sizes, now.Sizes) &&
		len(done) < len(now.Sizes) {
		return done, s.wholeLines()
	}
	line, err := json.Marshal(now)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(s.path, append(line, '\n'), 0o644)
	}
	return nil, err
}

// wholeLines takes away a last line that was not written to its end.
func (s state) wholeLines() error {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return err
	}
	return os.Truncate(s.path, int64(bytes.LastIndexByte(data, '\n')+1))
}

// read returns what the file has, but for such a line.
func (s state) read() (was begin, done []size, err error) {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return was, nil, err
	}
	lines := json.NewDecoder(bytes.NewReader(data[:bytes.LastIndexByte(data, '\n')+1]))
	if err := lines.Decode(&was); err != nil {
		return was, nil, fmt.Errorf("%s: %w", s.path, err)
	}
	for {
		var one size
		if err := lines.Decode(&one); err == io.EOF {
			return was, done, nil
		} else if err != nil {
			return was, nil, fmt.Errorf("%s: %w", s.path, err)
		}
		done = append(done, one)
	}
}

// add appends a size.
func (s state) add(one size) error {
	if s.path == "" {
		return nil
	}
	line, err := json.Marshal(one)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(s.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := file.Write(append(line, '\n')); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}
