package entry

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Settings are what an entry says.
type Settings struct {
	AgentSocket         string        // path of the unix socket where the agent answers; "": there is no agent
	AgentTimeout        time.Duration // of one question, 1 ms to 1 min
	StatusRequiresAgent bool          // STATUS fails while the agent does not answer
	AuxFailOpen         bool          // leave a pod of unknown annotations alone while the agent does not answer
	StateDir            string        // absolute path; the records are below it
	Backend             string        // one of Backends
	LogLevel            string        // debug, info, warning or error, or warn, in lower case
	Policy              redirect.Policy
}

// Defaults of an entry that says nothing.
const (
	DefaultAgentSocket  = "/run/istio-pod-network/agent.sock"
	DefaultAgentTimeout = 8 * time.Second
	DefaultStateDir     = "/run/istio-pod-network"
)

const maxAgentTimeout = time.Minute

// Backends are the valid values of `backend`; the first is the default.
var Backends = []string{"auto", "nftables", "iptables", "iptables-nft", "iptables-legacy"}

// DefaultSettings are those of an entry that says nothing.
func DefaultSettings() Settings {
	s := Settings{
		AgentSocket: DefaultAgentSocket, AgentTimeout: DefaultAgentTimeout, StateDir: DefaultStateDir,
		Backend: Backends[0], LogLevel: "info", Policy: redirect.DefaultPolicy(),
	}
	s.Policy.Agent = true
	return s
}

// Keys are the top-level keys of a JSON object, with the text of their values.
type Keys map[string]json.RawMessage

// Decode reads a network configuration.
func Decode(text []byte) (keys Keys, err error) {
	if err := json.Unmarshal(text, &keys); err != nil {
		return nil, fmt.Errorf("network configuration: not a JSON object: %w", err)
	}
	return keys, nil
}

// Into decodes the value of a key; a key that is absent or null leaves what is in target. valid says in an error what
// is valid.
func (k Keys) Into(key string, target any, valid string) error {
	raw, present := k[key]
	if !present || string(raw) == "null" || json.Unmarshal(raw, target) == nil {
		return nil
	}
	return invalid.JSON(key, string(raw), "", valid)
}

// Settings reads the settings of an entry. With an error, they have the default of what was not read, which is enough
// for a DEL.
func (k Keys) Settings() (Settings, error) {
	s := DefaultSettings()
	for _, read := range []func(Keys) error{s.readState, s.readAgent, s.readBackend, s.readPolicy} {
		if err := read(k); err != nil {
			return s, err
		}
	}
	return s, nil
}

// text reads the value of a key that is a string for which ok holds.
func (k Keys) text(key string, target *string, valid string, ok func(string) bool) error {
	value := *target
	if err := k.Into(key, &value, valid); err != nil {
		return err
	}
	if !ok(value) {
		return invalid.Text(key, value, "", valid)
	}
	*target = value
	return nil
}

// readState comes first: a DEL needs nothing else.
func (s *Settings) readState(k Keys) error {
	if err := k.text("stateDir", &s.StateDir, "an absolute path", filepath.IsAbs); err != nil {
		return err
	}
	level := func(text string) bool {
		return slices.Contains([]string{"debug", "info", "warning", "warn", "error"}, strings.ToLower(text))
	}
	err := k.text("logLevel", &s.LogLevel, "debug, info, warning or error", level)
	s.LogLevel = strings.ToLower(s.LogLevel)
	return err
}

func (s *Settings) readAgent(k Keys) error {
	const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1
	socket := func(path string) bool { return path == "" || filepath.IsAbs(path) && len(path) <= maxPath }
	const validSocket = `an absolute path of at most 107 bytes, or "" where there is no agent`
	if err := k.text("agentSocket", &s.AgentSocket, validSocket, socket); err != nil {
		return err
	}
	s.Policy.Agent = s.AgentSocket != ""
	timeout := s.AgentTimeout.String()
	duration := func(text string) (ok bool) {
		d, err := time.ParseDuration(text)
		if ok = err == nil && d >= time.Millisecond && d <= maxAgentTimeout; ok {
			s.AgentTimeout = d
		}
		return ok
	}
	if err := k.text("agentTimeout", &timeout, "a duration from 1ms to 1m, such as 8s", duration); err != nil {
		return err
	}
	if err := k.Into("auxFailOpen", &s.AuxFailOpen, "true or false"); err != nil {
		return err
	}
	return k.Into("statusRequiresAgent", &s.StatusRequiresAgent, "true or false")
}

func (s *Settings) readBackend(k Keys) error {
	known := func(name string) bool { return slices.Contains(Backends, name) }
	return k.text("backend", &s.Backend, strings.Join(Backends, ", "), known)
}

func (s *Settings) readPolicy(k Keys) (err error) {
	agent := s.Policy.Agent
	s.Policy, err = redirect.ParsePolicy(k)
	s.Policy.Agent = agent
	return err
}
