package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio/wire"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// CRI-O's texts about a pod that the plugin refuses, and about one without its rules, are those in troubleshooting.md.
func TestCRIOErrorsAsPrinted(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(build.Root(), "docs", "troubleshooting.md"))
	must(t, err)
	page := string(text)
	added := between(t, page, "\\| CRI-O \\| `(.+)` \\|")
	ours := between(t, page, "After these an error of this plugin begins with `(.+?)`")
	checked := between(t, page, "CRI-O's log has `(.+?)`")
	for _, c := range crioCases() {
		if c.way == dropIn {
			continue // CRI-O does not call CHECK
		}
		t.Run(c.String(), func(t *testing.T) {
			r := c.onto(t)
			wrong := r.podOf("wrong", meshAnnotations())
			wrong.Annotations["traffic.sidecar.istio.io/excludeOutboundPorts"] = "http"
			s, err := r.cri.Run(of(r.create(wrong)))
			if want := filled(added, s) + ours; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("it says %v\nand the page %s", err, want)
			}
			r.remove("wrong")
			cart := r.meshed(r.mesh("cart"), "eth0")
			must(t, isolated.InNetNS(cart.NetNS, func() error { return exec.Command("nft", "flush", "ruleset").Run() }))
			r.cri.Restart()
			_ = r.cri.Sandboxes() // returns once CRI-O has looked at all sandboxes
			for words := range strings.SplitSeq(filled(checked, cart), "…") {
				if is := strings.Contains(r.cri.Said(), words); is != (c.checks() != "") {
					t.Errorf("%q is in CRI-O's log: %t\n%s", words, is, r.cri.Said())
				}
			}
			r.stop(cart)
		})
	}
}

// between returns the text in a page that matches the group of a regular expression.
func between(t *testing.T, page, expression string) string {
	t.Helper()
	found := regexp.MustCompile(expression).FindStringSubmatch(page)
	if found == nil {
		t.Fatalf("troubleshooting.md has nothing like %s", expression)
	}
	return found[1]
}

// filled replaces the page's placeholders by the values of a sandbox.
func filled(words string, s wire.Sandbox) string {
	return strings.NewReplacer("NAMESPACE", s.Pod.Namespace, "POD", s.Pod.Name, "UID", s.Pod.UID, "ATTEMPT", "0",
		"ID", s.ID, "NETWORK", "pods").Replace(words)
}
