// Package entry is the one reader of the plugin's entry: the JSON object of type Type that an operator writes and that
// stands in a network configuration. Plugin, agent and installer read it here, so that what one takes the others take,
// and none can mean another socket, another state directory or another policy by it. docs/reference.md lists its keys.
package entry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/invalid"
)

// Type is the `type` of the entry, which is also the name of the plugin's binary.
const Type = "istio-pod-network"

// EnvInstaller is in the environment of a plugin whose STATUS the installer asks for: the programs in the installer's
// place are not those that the runtime will find.
const EnvInstaller = "ISTIO_POD_NETWORK_INSTALLER"

// DefaultText is the entry of an operator who says nothing. It asks the runtime for the pods' annotations: without them
// the plugin would have to ask the agent about every pod of the node. All else is the plugin's own default.
const DefaultText = `{"type": "` + Type + `", "capabilities": {"io.kubernetes.cri.pod-annotations": true}}`

// Entry is an entry that has been read: what it says, and its text. The zero value is no entry.
type Entry struct {
	Settings
	text string
}

// Parse reads an entry. With an error about a setting the entry has its text, and the default of what was not read.
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

// Default returns the entry of DefaultText.
func Default() Entry { return Entry{Settings: DefaultSettings(), text: DefaultText} }

// known are the keys that an operator may write: those that Settings reads, and those that the CNI specification 1.1.0,
// section 1, has for every plugin.
var known = []string{"agentSocket", "agentTimeout", "args", "auxFailOpen", "backend", "capabilities", "cniVersion",
	"dns", "excludeNamespaces", "ipMasq", "ipam", "logLevel", "name", "redirect", "selection", "sharedProxyUser",
	"stateDir", "statusRequiresAgent", "type"}

// CheckKeys returns an error, of package invalid, that names a top-level key that nothing reads: a misspelt one would
// silently have its default. It is for whoever installs an entry. The plugin takes every key: a runtime adds its own,
// and after an upgrade, the next release's may stand in the network before its binary does.
func (e Entry) CheckKeys() error {
	if e.IsZero() {
		return nil
	}
	keys, err := Decode(e.Text())
	if err != nil {
		return err
	}
	unknown := "" // of several, the same one each time
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

// Text returns the entry as its operator wrote it, without white space around it; nil for no entry.
func (e Entry) Text() []byte { return []byte(e.text) }

// IsZero reports whether there is no entry.
func (e Entry) IsZero() bool { return e.text == "" }

// With returns the entry with these keys, each in place of the entry's own; of a nil value, without the key. That is
// how a runtime hands an entry to the plugin. All else keeps its value as it is written, numbers included.
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

// TypeOf returns the `type` of a plugin's configuration as libcni finds it, "" where it has none.
func TypeOf(object []byte) string {
	var p struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(object, &p) != nil {
		return ""
	}
	return p.Type
}
