package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
)

// completed returns the options of a command line, without asking the plugin.
func completed(args ...string) (o options, err error) {
	set := o.flags()
	if err = set.Parse(append([]string{"--node-name=n"}, args...)); err == nil {
		err = o.check()
	}
	if err == nil {
		err = o.readEntry()
	}
	return o, err
}

// The error for an invalid value names the value, its flag and what is valid.
func TestOptions(t *testing.T) {
	for arg, words := range map[string][]string{
		"--node-name=":         {"--node-name", "spec.nodeName"},
		"--listen=x":           {"--listen", `"x"`, ":15088"},
		"--listen=:99999":      {"--listen", `":99999"`, ":15088"},
		"--log-format=xml":     {"--log-format", `"xml"`, "text or json"},
		"--api-qps=0":          {"--api-qps", `"0"`, "more than 0"},
		"--api-burst=0":        {"--api-burst", `"0"`, "1 or more"},
		"--repair=maybe":       {"--repair", `"maybe"`, "apply, delete or off"},
		"--renew-rules=shop":   {"--renew-rules", `"shop"`, "--repair is off", "--repair=apply"},
		"--renew-rules=a,[":    {"names or shell patterns", "shop,team-*"},
		"--cni-cache-dir=x":    {"--cni-cache-dir", `"x"`, "an absolute path"},
		"--netns-dir=x":        {"--netns-dir", `"x"`, "an absolute path"},
		"--patrol=0s":          {"--patrol", `"0s"`, "5s"},
		"--stuck-after=-1s":    {"--stuck-after", `"-1s"`},
		"--sweep-after=0s":     {"--sweep-after", `"0s"`},
		"--mode=x":             {"x", "chain, nad or aux"},
		"--network-config=/no": {"--network-config", "/no"},
	} {
		_, err := completed(arg)
		if err == nil {
			t.Errorf("%s is taken", arg)
			continue
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v, want %q", arg, err, word)
			}
		}
	}
	if _, err := completed("--uninstall", "--no-install"); err == nil ||
		!strings.Contains(err.Error(), "exclude each other") {
		t.Error(err)
	}
	if _, err := completed(); err != nil {
		t.Error(err)
	}
	for given, want := range map[string][]string{"": nil, "*": {"*"}, "shop, cart-1,": {"shop", "cart-1"}} {
		if o, err := completed("--repair=apply", "--renew-rules="+given); err != nil || !slices.Equal(o.renew, want) {
			t.Errorf("%q: %q, %v", given, o.renew, err)
		}
	}
}

// --renew-rules needs the plugin of this release.
func TestRenewNeedsPlugin(t *testing.T) {
	o, err := completed("--repair=apply", "--renew-rules=*", "--no-install")
	await.Must(t, err)
	if err := o.askPlugin(t.Context()); err == nil || !strings.Contains(err.Error(), "there is no plugin beside") {
		t.Error(err)
	}
	o.install.Source = "/x"
	await.Must(t, o.askPlugin(t.Context()))
}

// An agent starts although the plugin answers late, as on a busy node: that is no wrong setting.
func TestPluginLate(t *testing.T) {
	o, err := completed()
	await.Must(t, err)
	o.install.Source = filepath.Join(t.TempDir(), "plugin")
	await.Must(t, os.WriteFile(o.install.Source, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	await.Must(t, o.askPlugin(ctx))
}

// The agent takes the paths of socket and records from the entry. To install the plugin, the whole entry has to be
// valid. With --no-install, the part that the agent uses has to be valid. With --uninstall, the entry may be invalid.
func TestEntryIsRead(t *testing.T) {
	o, err := completed("--network-config=" +
		entryFile(t, `"agentSocket": "/s", "stateDir": "/d", "excludeNamespaces": ["a"]`))
	if err != nil || o.socket != "/s" || o.store.Dir != "/d" || len(o.policy.ExcludeNamespaces) != 1 || !o.policy.Agent {
		t.Errorf("%v: %+v", err, o)
	}
	for settings, taken := range map[string][]string{
		`"backend": "ebpf"`:   {"--no-install", "--uninstall"},
		`"agentSokcet": "/s"`: {"--no-install", "--uninstall"},
		`"selection": "all"`:  {"--uninstall"},
		`"stateDir": "x"`:     {"--uninstall"},
		`"agentSocket": ""`:   nil, // the agent cannot run with it
	} {
		file := "--network-config=" + entryFile(t, settings)
		for _, how := range []string{"--no-install", "--uninstall", "--repair=off"} {
			want := strings.Contains(strings.Join(taken, " "), how)
			if _, err := completed(file, how); (err == nil) != want || err != nil &&
				!strings.Contains(err.Error(), "--network-config: ") {
				t.Errorf("%s, %s: %v", settings, how, err)
			}
		}
	}
}

func entryFile(t *testing.T, settings string) string {
	path := filepath.Join(t.TempDir(), "entry.json")
	await.Must(t, os.WriteFile(path, []byte(`{"type": "istio-pod-network", `+settings+`}`), 0o600))
	return path
}
