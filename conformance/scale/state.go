package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/istio-pod-network/controller/conformance/internal/kept"
)

// state is a file with the figures so far, so that a run can be continued: a line about the measurement, and one line
// for each size.
type state struct {
	path string // "" for none
}

// begin is the first line.
type begin struct {
	Options settings `json:"options"`
	Sizes   []int    `json:"sizes"`
}

// settings are the options in the file.
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
	Programs    string `json:"programs"` // a hash of this program, the agents and the plugin
}

// String returns the line above a table.
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
		o.apiPriority, ""}
}

// hashOf returns a short hash of files. What other programs have measured is not continued.
func hashOf(files ...string) (string, error) {
	hash := sha256.New()
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(hash, file)
		if err := errors.Join(err, file.Close()); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", hash.Sum(nil)[:6]), nil
}

// open returns the figures of an unfinished run of the same measurement. Otherwise it starts the file anew.
func (s state) open(now begin) ([]size, error) {
	was, done, err := s.read()
	if err == nil && was.Options == now.Options && slices.Equal(was.Sizes, now.Sizes) && len(done) < len(now.Sizes) {
		return done, nil
	}
	return nil, kept.Begin(s.path, now)
}

// read returns the content of the file.
func (s state) read() (was begin, done []size, err error) { return kept.Read[begin, size](s.path) }

// add appends a size.
func (s state) add(one size) error { return kept.Add(s.path, one) }
