package record

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/istio-pod-network/controller/internal/invalid"
)

// Version is the version of the records that this package writes, and the only one that it reads.
const Version = 1

// Values of Record.Decision.
const (
	Redirect  = "redirect"  // the rules are in the network namespace
	Untouched = "untouched" // the pod has mesh annotations, but nothing was written; Reason says why
)

// maxSize limits a record, written or read, in bytes. A pod with 5,000 prefixes of both families and 1,000 ports needs
// well under half a megabyte.
const maxSize = 4 << 20

// Record is the outcome of one successful ADD.
type Record struct {
	Version     int    `json:"version"`     // Put sets it if it is zero
	Network     string `json:"network"`     // the name of the CNI network; GC works on one network
	IfName      string `json:"ifName"`      // CNI_IFNAME
	ContainerID string `json:"containerID"` // CNI_CONTAINERID, which identifies the sandbox
	PodUID      string `json:"podUID"`      // K8S_POD_UID; for a static pod the config hash that its mirror pod carries
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	NetNS       NetNS  `json:"netns"`    // the network namespace of the attachment
	Decision    string `json:"decision"` // Redirect or Untouched
	Reason      string `json:"reason"`
	// Detail is what an operator should know beside the reason, such as a warning.
	Detail      string `json:"detail,omitempty"`
	Backend     string `json:"backend,omitempty"`     // the backend that wrote the rules; empty if untouched
	RuleSetHash string `json:"ruleSetHash,omitempty"` // redirect.RuleSet.Hash of the rules that were written
	// Families is the one IP family that is captured, IPv4 or IPv6. It is empty if both are. Spec has the same value.
	Families string `json:"families,omitempty"`
	// Spec is the effective settings as JSON. CHECK derives the expected rules from it, without the agent. White space
	// is not kept.
	Spec json.RawMessage `json:"spec,omitempty"`
	// Created lists the addresses and routes that ADD created beside the packet rules, such as "address ::6/128 lo".
	// DEL removes only those.
	Created []string  `json:"created,omitempty"`
	Skipped []string  `json:"skipped,omitempty"` // what was skipped, each with its reason
	Time    time.Time `json:"time"`              // when ADD ended, in UTC
	// DurationMicroseconds is how long ADD took.
	DurationMicroseconds int64 `json:"durationMicroseconds"`
}

// validate returns an error if r cannot be stored. Writing and reading use the same checks.
func (r Record) validate() error {
	if _, err := fileName(r.ContainerID, r.IfName); err != nil {
		return err
	}
	if r.Network == "" {
		return errors.New("no network name")
	}
	if r.Decision != Redirect && r.Decision != Untouched {
		return invalid.Text("decision", r.Decision, "", "redirect or untouched")
	}
	return nil
}

// encode validates r, sets its version, and returns the contents of its file.
func encode(r Record) ([]byte, error) {
	if r.Version == 0 {
		r.Version = Version
	}
	if r.Version != Version {
		return nil, &versionError{found: r.Version}
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	r.Time = r.Time.UTC()
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(data) >= maxSize {
		return nil, errTooLarge
	}
	return append(data, '\n'), nil
}

// parse decodes what encode returns. All readers use it.
func parse(data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		// A later version may change the type of a key, so look at the version alone before calling the file invalid.
		var only struct {
			Version int `json:"version"`
		}
		if json.Unmarshal(data, &only) == nil && only.Version != Version {
			return Record{}, &versionError{found: only.Version}
		}
		return Record{}, err
	}
	if r.Version != Version {
		return Record{}, &versionError{found: r.Version}
	}
	if err := r.validate(); err != nil {
		return Record{}, err
	}
	return r, nil
}
