package entry

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Settings are the values in an entry.
type Settings struct {
	AgentSocket         string        // path of the agent's unix socket; "": there is no agent
	AgentTimeout        time.Duration // for one question, 1 ms to 1 min
	StatusRequiresAgent bool          // STATUS fails if the agent does not answer
	AuxFailOpen         bool          // leave a pod with unknown annotations untouched if the agent does not answer
	StateDir            string        // absolute path; the records are below it
	Backend             string        // one of Backends
	LogLevel            string        // debug, info, warning, warn or error, in lower case
	Policy              redirect.Policy
}

// Defaults of the settings.
const (
	DefaultAgentSocket  = "/run/istio-pod-network/agent.sock"
	DefaultAgentTimeout = 8 * time.Second
	DefaultStateDir     = "/run/istio-pod-network"
)

const maxAgentTimeout = time.Minute

// maxSocket is the longest path of a unix socket on a node, in bytes: sun_path without its terminating zero
// (include/uapi/linux/un.h). The entry may be read on another system than the node's.
const maxSocket = 107

// Backends are the valid values of `backend`. The first one is the default.
var Backends = []string{"auto", "nftables", "iptables", "iptables-nft", "iptables-legacy"}

// DefaultSettings returns the settings of an entry without any.
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

// Decode decodes a network configuration.
func Decode(text []byte) (keys Keys, err error) {
	if err := json.Unmarshal(text, &keys); err != nil {
		return nil, fmt.Errorf("network configuration: not a JSON object: %w", err)
	}
	return keys, nil
}

// Into decodes the value of a key into target. If the key is absent or null, target stays as it is. valid says what is
// valid, for the error.
func (k Keys) Into(key string, target any, valid string) error {
	return redirect.ReadKey(k, key, target, "", valid)
}

// Settings parses the settings of an entry. With an error, what was not read has its default, which is enough for DEL.
// See also IsPluginOnly.
func (k Keys) Settings() (Settings, error) {
	s := DefaultSettings()
	if err := s.readShared(k); err != nil {
		return s, err
	}
	if err := s.readPluginOnly(k); err != nil {
		return s, &pluginOnlyError{err}
	}
	return s, nil
}

// pluginOnlyError is an error about a setting that only the plugin uses.
type pluginOnlyError struct{ error }

func (e *pluginOnlyError) Unwrap() error { return e.error }

// IsPluginOnly reports whether err is about a setting that only the plugin uses. Everything that the agent uses was
// then read.
func IsPluginOnly(err error) bool { return errors.As(err, new(*pluginOnlyError)) }

// text reads the value of a key, which must be a string for which ok returns true.
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

// readShared reads what both plugin and agent use. stateDir comes first: DEL needs nothing else.
func (s *Settings) readShared(k Keys) error {
	if err := k.text("stateDir", &s.StateDir, "an absolute path", path.IsAbs); err != nil {
		return err
	}
	socket := func(name string) bool { return name == "" || path.IsAbs(name) && len(name) <= maxSocket }
	const validSocket = `an absolute path of at most 107 bytes, or "" where there is no agent`
	if err := k.text("agentSocket", &s.AgentSocket, validSocket, socket); err != nil {
		return err
	}
	policy, err := redirect.ParsePolicy(k)
	policy.Agent = s.AgentSocket != ""
	s.Policy = policy
	return err
}

func (s *Settings) readPluginOnly(k Keys) error {
	level := func(text string) bool {
		return slices.Contains([]string{"debug", "info", "warning", "warn", "error"}, strings.ToLower(text))
	}
	if err := k.text("logLevel", &s.LogLevel, "debug, info, warning or error", level); err != nil {
		return err
	}
	s.LogLevel = strings.ToLower(s.LogLevel)
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
	if err := k.Into("statusRequiresAgent", &s.StatusRequiresAgent, "true or false"); err != nil {
		return err
	}
	known := func(name string) bool { return slices.Contains(Backends, name) }
	return k.text("backend", &s.Backend, strings.Join(Backends, ", "), known)
}
