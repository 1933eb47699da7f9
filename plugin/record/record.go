package record

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/istio-pod-network/controller/internal/invalid"
)

// Version of the record this package writes, and the only one it reads.
const Version = 1

// Values of Record.Decision.
const (
	Redirect  = "redirect"  // the rules are in the network namespace
	Untouched = "untouched" // the pod carries mesh annotations, yet nothing was written; Reason says why
)

// maxSize bounds a record in bytes, written or read. A pod may list 5,000 prefixes of both families and 1,000 ports,
// which is well under half a megabyte; the rest is room, not need.
const maxSize = 4 << 20

// Record is the outcome of one successful ADD.
type Record struct {
	Version     int    `json:"version"`     // filled in by Put when zero
	Network     string `json:"network"`     // name of the CNI network, the scope of GC
	IfName      string `json:"ifName"`      // CNI_IFNAME
	ContainerID string `json:"containerID"` // CNI_CONTAINERID, the sandbox
	PodUID      string `json:"podUID"`      // K8S_POD_UID; of a static pod the hash its mirror pod carries
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	NetNS       NetNS  `json:"netns"`    // which network namespace it is about
	Decision    string `json:"decision"` // Redirect or Untouched
	Reason      string `json:"reason"`
	// Detail is what a person should know beside the reason, for instance a warning.
	Detail      string `json:"detail,omitempty"`
	Backend     string `json:"backend,omitempty"`     // the backend that wrote the rules; empty when untouched
	RuleSetHash string `json:"ruleSetHash,omitempty"` // hash of the rule set that was written
	// Families is the one IP family that is captured, IPv4 or IPv6; empty where both are. Spec says the same.
	Families string `json:"families,omitempty"`
	// Spec is the effective settings as JSON, from which CHECK rebuilds the expected rules without the agent.
	// It is kept by value, not by byte: white space is dropped.
	Spec json.RawMessage `json:"spec,omitempty"`
	// Created lists the inert things ADD made beside the packet rules ("address ::6/128 lo"), so that DEL removes just
	// those.
	Created []string  `json:"created,omitempty"`
	Skipped []string  `json:"skipped,omitempty"` // what was left out, each with its reason
	Time    time.Time `json:"time"`              // end of ADD, stored in UTC
	// DurationMicroseconds is how long ADD took.
	DurationMicroseconds int64 `json:"durationMicroseconds"`
}

// validate reports what makes r unfit to be kept; it holds for writing and reading alike.
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

// encode checks r, fills in its version and renders it as the contents of its file.
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

// parse is the inverse of encode and the only reader of the format.
func parse(data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		// A later version may give a key another type, so the version has to be looked at alone before calling it garbage.
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
