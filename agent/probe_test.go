package agent

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/install/installtest"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/program"
)

// probe on a node without this project: where its network is, which configurations are invalid, and which plugins
// exist.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"net.d/10-net.conflist":  `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}`,
		"net.d/05-torn.conflist": `{`, "net.d/99-other.conf": `{"cniVersion": "1.0.0", "name": "other", "type": "ptp"}`,
		"multus/00-multus.conf": `{"cniVersion": "1.0.0", "name": "multus", "type": "multus"}`, "empty/README": "",
	} {
		await.Must(t, os.MkdirAll(filepath.Dir(path(name)), 0o755))
		await.Must(t, os.WriteFile(path(name), []byte(text), 0o600))
	}
	installtest.Programs(t, path("bin"), "bridge")
	installtest.Programs(t, path("others"), "ptp")
	run := func(script string, args ...string) (status int, found inspect.Probed, stderr string) {
		t.Helper()
		await.Must(t, os.WriteFile(path("plugin"), []byte("#!/bin/sh\ncat >"+path("stdin")+"\n"+script), 0o755))
		var out, errs bytes.Buffer
		p := program.Program{Name: "it", Help: probeHelp, Getenv: func(string) string { return "" }, Stdout: &out,
			Stderr: &errs}
		status = probeCommand(t.Context(), p, append([]string{"--plugin=" + path("plugin")}, args...))
		if status == 0 {
			await.Must(t, json.Unmarshal(out.Bytes(), &found))
		}
		return status, found, errs.String()
	}
	status, found, stderr := run("", "--conf-dir="+path("net.d"), "--conf-dir="+path("multus"),
		"--conf-dir="+path("empty"), "--conf-dir="+path("none"), "--bin-dir="+path("others"),
		"--bin-dir="+path("bin"), "--bin-dir="+path("none"))
	if status != 0 || found.Kernel == "" || found.Rules != (inspect.Rules{Looked: true, OK: true}) {
		t.Fatalf("status %d, %+v: %s", status, found, stderr)
	}
	if stdin, err := os.ReadFile(path("stdin")); err != nil || !strings.Contains(string(stdin), `"backend": "nftables"`) &&
		!strings.Contains(string(stdin), `"backend":"nftables"`) {
		t.Errorf("the plugin was asked %s, %v", stdin, err)
	}
	for i, want := range []inspect.Network{
		{Directory: path("net.d"), Exists: true, File: path("net.d/10-net.conflist"), Name: "net",
			Chain: []string{"bridge"}},
		{Directory: path("multus"), Exists: true, File: path("multus/00-multus.conf"), Name: "multus",
			Chain: []string{"multus"}, Protected: "it is a readiness file of its owner, never edited by us"},
		{Directory: path("empty"), Exists: true}, {Directory: path("none")},
	} {
		got := found.Networks[i]
		if i == 0 && (len(got.Others) != 2 || !strings.HasPrefix(got.Others[0], path("net.d/05-torn.conflist")+": ") ||
			got.Others[1] != path("net.d/99-other.conf")) {
			t.Errorf("%q", got.Others)
		}
		got.Others = nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	want := []inspect.Plugins{{Directory: path("others"), Exists: true, Missing: []string{"bridge"}},
		{Directory: path("bin"), Exists: true}, {Directory: path("none"), Missing: []string{"bridge"}}}
	if !reflect.DeepEqual(found.Plugins, want) {
		t.Errorf("%+v, want %+v", found.Plugins, want)
	}

	for script, want := range map[string]inspect.Rules{
		`echo '{"code": 50, "msg": "no", "details": "because"}'; exit 1`: {Looked: true, Detail: "no: because"},
		`echo '{"code": 7, "msg": "bad entry"}'; exit 1`:                 {Detail: "bad entry"},
		`echo "no backend could be tried: EPERM" >&2`:                    {Detail: "no backend could be tried: EPERM"},
	} {
		if _, found, _ := run(script); found.Rules != want {
			t.Errorf("%s: %+v, want %+v", script, found.Rules, want)
		}
	}
	_, found, _ = run("echo torn; exit 1")
	if found.Rules.Looked || !strings.Contains(found.Rules.Detail, "exit status 1") {
		t.Errorf("%+v", found.Rules)
	}
	status, _, stderr = run("", "--root="+path("none"))
	if status != 1 || !strings.Contains(stderr, "changing the root to") {
		t.Errorf("status %d: %s", status, stderr)
	}
	if status, _, stderr := run("", "--conf-dir=etc"); status != 2 || !strings.Contains(stderr, "an absolute path") {
		t.Errorf("status %d: %s", status, stderr)
	}
}
