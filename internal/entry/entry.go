// Package entry is the only reader of the plugin's entry: the JSON object of type Type that an operator writes, in a
// network configuration. Plugin, agent and installer use it, so that all accept the same entries and read the same
// socket, state directory and policy from them. docs/reference.md lists the keys.
package entry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/invalid"
)

// Type is the `type` of the entry, and the name of the plugin's binary.
const Type = "istio-pod-network"

// EnvInstaller is the environment variable with which the installer calls the plugin's STATUS: the programs where the
// installer runs are not those that the runtime's call will find.
const EnvInstaller = "ISTIO_POD_NETWORK_INSTALLER"

// DefaultText is the default entry. It requests the pods' annotations from the runtime: without them the plugin would
// have to ask the agent about every pod of the node. All other settings have the plugin's defaults.
const DefaultText = `{"type": "` + Type + `", "capabilities": {"io.kubernetes.cri.pod-annotations": true}}`

// Entry is a parsed entry and its text. The zero value is no entry.
type Entry struct {
	Settings
	text string
}

// Parse parses an entry. If a setting is invalid, it returns an error, and the entry has its text and the defaults for
// what was not read.
func Parse(text []byte) (Entry, error) {
	text = bytes.TrimSpace(text)
	if TypeOf(text) != Type {
		return Entry{}, fmt.Errorf("network configuration: it must be a JSON object of type %q", Type)
	}
	e := Entry{text: string(text)}
	keys, err := Decode(text)
	if err == nil {
		e.Settings, err = keys.Settings()
	}
	return e, err
}

// Default returns the entry with the text DefaultText.
func Default() Entry { return Entry{Settings: DefaultSettings(), text: DefaultText} }

// known are the keys that an operator may write: those of Settings, and those that the CNI specification 1.1.0, section
// 1, has for every plugin.
var known = []string{"agentSocket", "agentTimeout", "args", "auxFailOpen", "backend", "capabilities", "cniVersion",
	"dns", "excludeNamespaces", "ipMasq", "ipam", "logLevel", "name", "redirect", "selection", "sharedProxyUser",
	"stateDir", "statusRequiresAgent", "type"}

// CheckKeys returns an error, of package invalid, that names an unknown top-level key: a misspelt key would silently
// have its default. It is for programs that install an entry. The plugin itself accepts every key: a runtime adds keys
// of its own, and after an upgrade the network may have the next release's keys before its binary is there.
func (e Entry) CheckKeys() error {
	if e.IsZero() {
		return nil
	}
	keys, err := Decode(e.Text())
	if err != nil {
		return err
	}
	unknown := "" // of several, always the same
	for key := range keys {
		if !slices.Contains(known, key) && (unknown == "" || key < unknown) {
			unknown = key
		}
	}
	if unknown == "" {
		return nil
	}
	return invalid.Text("network configuration", unknown, "unknown key", strings.Join(known, ", "))
}

// Text returns the entry as the operator wrote it, without white space around it, or nil for no entry.
func (e Entry) Text() []byte { return []byte(e.text) }

// IsZero reports whether this is no entry.
func (e Entry) IsZero() bool { return e.text == "" }

// With returns the entry with these keys, as a runtime passes it to the plugin. Each replaces the entry's own key; a
// nil value removes it. All other values stay as they are written, numbers included.
func (e Entry) With(keys map[string]any) ([]byte, error) {
	all, err := Decode(e.Text())
	if err != nil {
		return nil, err
	}
	for key, value := range keys {
		delete(all, key)
		if value == nil {
			continue
		}
		if all[key], err = json.Marshal(value); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return json.Marshal(all)
}

// TypeOf returns the `type` of a plugin's configuration as libcni reads it, or "" if it has none.
func TypeOf(object []byte) string {
	var p struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(object, &p) != nil {
		return ""
	}
	return p.Type
}
