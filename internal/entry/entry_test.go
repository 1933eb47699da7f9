package entry

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDefault(t *testing.T) {
	read, err := Parse([]byte(DefaultText))
	if err != nil || !reflect.DeepEqual(read, Default()) || read.IsZero() || !(Entry{}).IsZero() {
		t.Errorf("%+v, %v, want %+v", read, err, Default())
	}
}

// Parse returns the values of an entry. null means the default.
func TestParse(t *testing.T) {
	text := `{"type": "istio-pod-network", "agentSocket": "", "agentTimeout": "1s",
		"statusRequiresAgent": true, "auxFailOpen": true,
		"stateDir": "/state", "backend": "iptables", "logLevel": "WARN", "selection": "annotated", "unknown": 1e4}`
	e, err := Parse([]byte("\n " + text + "\t"))
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultSettings()
	want.AgentSocket, want.AgentTimeout, want.StatusRequiresAgent, want.AuxFailOpen = "", time.Second, true, true
	want.StateDir, want.Backend, want.LogLevel = "/state", "iptables", "warn"
	want.Policy.Agent, want.Policy.Selection = false, "annotated"
	if !reflect.DeepEqual(e.Settings, want) || string(e.Text()) != text {
		t.Errorf("%+v, want %+v; text %q", e.Settings, want, e.Text())
	}
	nothing, err := Parse([]byte(`{"type": "istio-pod-network", "agentSocket": null, "agentTimeout": null,
		"statusRequiresAgent": null,
		"auxFailOpen": null, "stateDir": null, "backend": null, "logLevel": null, "selection": null, "redirect": null}`))
	if err != nil || !reflect.DeepEqual(nothing.Settings, DefaultSettings()) {
		t.Errorf("%+v, %v", nothing.Settings, err)
	}
}

// What is not an entry, and invalid values. plugin/redirect tests the policy's keys; the built plugin is tested with
// all.
func TestRefused(t *testing.T) {
	for _, text := range []string{``, `1`, `[]`, `null`, `{}`, `{"type":"x"}`, `{"type":5}`,
		`{"type":"istio-pod-network"`} {
		if e, err := Parse([]byte(text)); err == nil || !e.IsZero() ||
			!strings.Contains(err.Error(), `object of type "istio-pod-network"`) {
			t.Errorf("%s: %+v, %v", text, e, err)
		}
	}
	for setting, valid := range map[string]string{
		`"stateDir": "x"`: "an absolute path", `"stateDir": 5`: "an absolute path",
		`"agentSocket": "@x"`:   "at most 107 bytes",
		`"agentTimeout": "61s"`: "1ms to 1m", `"agentTimeout": 8`: "1ms to 1m", `"auxFailOpen": "true"`: "true or false",
		`"statusRequiresAgent": 1`: "true or false", `"backend": "ebpf"`: "iptables-legacy",
		`"backend": 5`:        "iptables-legacy",
		`"logLevel": "trace"`: "warning", `"logLevel": "loud"`: "warning", `"selection": "all"`: "injected or annotated",
		`"redirect": 5`: "an object", `"redirect": {"proxyUID": 0}`: "a user ID",
	} {
		text := `{"type": "istio-pod-network", "stateDir": "/kept", ` + setting + `}`
		e, err := Parse([]byte(text))
		key := strings.Split(setting, `"`)[1]
		if err == nil || !strings.HasPrefix(err.Error(), key) || !strings.Contains(err.Error(), valid) {
			t.Errorf("%s: %v, want %s", setting, err, valid)
		}
		// With an invalid setting, the plugin can still be uninstalled.
		if want := map[bool]string{true: DefaultStateDir, false: "/kept"}[key == "stateDir"]; e.IsZero() ||
			e.StateDir != want {
			t.Errorf("%s: state directory %q, want %q", setting, e.StateDir, want)
		}
	}
}

// CheckKeys names a misspelt key. Every key in the reference is known.
func TestCheckKeys(t *testing.T) {
	for text, key := range map[string]string{
		DefaultText: "", `{"type":"istio-pod-network","agentSokcet":"/s"}`: "agentSokcet",
		`{"type":"istio-pod-network","agentsocket":"/s"}`:           "agentsocket",
		`{"type":"istio-pod-network","redirect":{},"prevResult":1}`: "prevResult",
	} {
		e, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		err = e.CheckKeys()
		if key == "" && err != nil || key != "" && (err == nil || !strings.Contains(err.Error(), `"`+key+`": unknown key`)) {
			t.Errorf("%s: %v, want %q", text, err, key)
		}
	}
	if err := (Entry{}).CheckKeys(); err != nil {
		t.Error(err)
	}
	page, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| key | meaning |")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := regexp.MustCompile("(?m)^\\| `([a-zA-Z]+)` ").FindAllStringSubmatch(table, -1)
	if len(rows) < 5 {
		t.Errorf("%d rows in the reference", len(rows))
	}
	for _, row := range rows {
		if !slices.Contains(known, row[1]) {
			t.Errorf("%s stands in the reference and is unknown", row[1])
		}
	}
}

func TestWith(t *testing.T) {
	e, err := Parse([]byte(`{"type": "istio-pod-network", "name": "old", "capabilities": {}, "big": ` +
		`12345678901234567890, "mtu": 1e4}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.With(map[string]any{"name": "new", "capabilities": nil, "prevResult": json.RawMessage(`{"a": 1.0}`)})
	const want = `{"big":12345678901234567890,"mtu":1e4,"name":"new","prevResult":{"a":1.0},"type":"istio-pod-network"}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

// FuzzParse checks that a parsed entry has the properties that plugin, agent and installer rely on.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		DefaultText, `{"type":"istio-pod-network","agentSocket":"","logLevel":"DEBUG","redirect":{"mode":"TPROXY"}}`,
		`{"Type":"istio-pod-network"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := Parse(text)
		if e.IsZero() {
			if err == nil {
				t.Error("no entry and no error")
			}
			return
		}
		if !json.Valid(e.Text()) || TypeOf(e.Text()) != Type || !filepath.IsAbs(e.StateDir) ||
			!slices.Contains(Backends, e.Backend) ||
			e.AgentSocket != "" && !filepath.IsAbs(e.AgentSocket) || err == nil && e.Policy.Agent != (e.AgentSocket != "") {
			t.Errorf("%q: %+v, %v", text, e, err)
		}
		if again, failed := Parse(e.Text()); (failed == nil) != (err == nil) || !reflect.DeepEqual(again, e) {
			t.Errorf("%q: %+v, then %+v", text, e, again)
		}
	})
}

// Errors about settings that only the plugin uses are distinguished, and everything that the agent uses is read.
func TestPluginOnly(t *testing.T) {
	for setting, want := range map[string]bool{
		`"backend": "ebpf"`: true, `"logLevel": "loud"`: true, `"agentTimeout": "1h"`: true, `"auxFailOpen": 1`: true,
		`"statusRequiresAgent": "x"`: true, `"stateDir": "x"`: false, `"agentSocket": "x"`: false,
		`"selection": "all"`: false,
	} {
		e, err := Parse([]byte(`{"type": "istio-pod-network", "excludeNamespaces": ["a"], "agentSocket": "/s", ` +
			`"stateDir": "/d", ` + setting + `}`))
		if err == nil || IsPluginOnly(err) != want {
			t.Errorf("%s: %v: of the plugin alone is %t", setting, err, !want)
		}
		if want && (e.StateDir != "/d" || e.AgentSocket != "/s" || !slices.Equal(e.Policy.ExcludeNamespaces, []string{"a"})) {
			t.Errorf("%s: read %+v", setting, e.Settings)
		}
	}
}
