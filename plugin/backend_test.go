package plugin

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/record"
)

// TestWays runs the plugin where an iptables variant cannot work, as on a kernel that lacks its modules. ADD uses the
// other variant, and CHECK and DEL follow it. If none works, ADD and STATUS name the same reasons for both, and ADD
// leaves nothing behind.
func TestWays(t *testing.T) {
	for _, test := range []struct{ fail, want string }{
		{"", "iptables-nft"}, {"nft", "iptables-legacy"}, {"nft legacy", ""},
	} {
		t.Run("without "+test.fail, func(t *testing.T) {
			call := newInvocation(newNetNS(t), t.TempDir())
			call.conf["backend"] = "iptables"
			call.env["PATH"] = failing(t, test.fail) + ":" + os.Getenv("PATH")
			store := record.Store{Dir: call.conf["stateDir"].(string)}
			status, stdout, stderr := call.run(t, "STATUS")
			told, err := store.Problem()
			await.Must(t, err)
			if test.want == "" {
				refused(t, call, status, stdout, told)
				return
			}
			if status != 0 || told != "" {
				t.Errorf("STATUS: %d %s %s, told %q", status, stdout, stderr, told)
			}
			for _, verb := range []string{"ADD", "CHECK", "ADD", "CHECK"} {
				if status, stdout, stderr := call.run(t, verb); status != 0 {
					t.Fatalf("%s: %s %s", verb, stdout, stderr)
				}
				if r, err := store.Get(sandbox, "eth0"); err != nil || r.Backend != test.want {
					t.Errorf("%s: by %q, %v", verb, r.Backend, err)
				}
			}
			if status, _, stderr := call.run(t, "DEL"); status != 0 || strings.Contains(stderr, "level=warning") {
				t.Errorf("DEL: %s", stderr)
			}
			nothingOurs(t, call)
		})
	}
}

// refused expects ADD and STATUS to fail for the same reasons.
func refused(t *testing.T, call *invocation, status int, stdout, told string) {
	t.Helper()
	reasons := []string{"backend iptables is not usable: iptables-nft: running ip6tables-nft-restore: exit status 4: " +
		"no nft module", "; iptables-legacy: running ip6tables-legacy-restore: exit status 4: no legacy module",
		"use the nftables backend, which works here and needs no program"}
	text := failure(t, status, stdout, types.ErrPluginNotAvailable)
	says(t, text, reasons...)
	if told != text {
		t.Errorf("the agent is told %q, the runtime %q", told, text)
	}
	status, stdout, _ = call.run(t, "ADD")
	added := failure(t, status, stdout, codeBackend)
	says(t, added, reasons...)
	says(t, added, "; see: istio-pod-networkctl explain ")
	added, _, _ = strings.Cut(added, "; see: ") // STATUS is not about a pod, so it has no such hint
	if _, added, _ = strings.Cut(added, "backend iptables"); !strings.HasSuffix(text, added) {
		t.Errorf("ADD says %q, STATUS %q", added, text)
	}
	store := record.Store{Dir: call.conf["stateDir"].(string)}
	if _, err := store.Get(sandbox, "eth0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a record: %v", err)
	}
	nothingOurs(t, call)
}

// failure decodes a CNI error with that code and returns its text.
func failure(t *testing.T, status int, stdout string, code uint) string {
	t.Helper()
	var said types.Error
	if err := json.Unmarshal([]byte(stdout), &said); err != nil || status == 0 || said.Code != code || said.Details != "" {
		t.Errorf("status %d, want code %d: %s, %v", status, code, stdout, err)
	}
	return said.Msg
}

// failing makes a directory with iptables programs, of which those of the given variants fail.
func failing(t *testing.T, ways string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, way := range strings.Fields(ways) {
		for _, family := range []string{"iptables", "ip6tables"} {
			script := "#!/bin/sh\necho no " + way + " module >&2\nexit 4\n"
			await.Must(t, os.WriteFile(filepath.Join(dir, family+"-"+way+"-restore"), []byte(script), 0o755))
		}
	}
	return dir
}

// nothingOurs fails the test if the pod has chains or addresses of ours.
func nothingOurs(t *testing.T, call *invocation) {
	t.Helper()
	out, err := exec.Command("nsenter", "--net="+call.env["CNI_NETNS"], "sh", "-ec",
		"nft list ruleset; iptables-legacy-save; ip6tables-legacy-save; ip address; ip rule; ip -6 rule").CombinedOutput()
	if err != nil || strings.Contains(string(out), "ISTIO") || strings.Contains(string(out), "istio") ||
		strings.Contains(string(out), "::6/128") || strings.Contains(string(out), "fwmark") {
		t.Errorf("%v, left: %s", err, out)
	}
}
