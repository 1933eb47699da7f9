package node

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// An agent whose watches fail stays ready. It reports the failure once in the log, at the default level, and in
// /readyz. It also reports when the API server is back.
func TestWatchFails(t *testing.T) {
	r := newRig(t).withPrimary()
	r.entry["selection"] = "annotated" // otherwise namespaces are not watched
	r.startAgent("--log-level=info")
	r.ready()
	line := func() string {
		status, body := r.get("/readyz")
		if status != http.StatusOK {
			t.Errorf("%d %s", status, body)
		}
		return regexp.MustCompile(`(?m)^\[\+\] API server: .*$`).FindString(body)
	}
	if said := line(); !strings.HasSuffix(said, ": watched") {
		t.Errorf("%q", said)
	}
	back := r.away()
	warned := func() int {
		return strings.Count(r.agent.log.String(), `level=warning msg="the API server cannot be watched`)
	}
	r.eventually("it warns", func() bool { return warned() > 0 })
	r.eventually("/readyz says it of both", func() bool {
		said := line()
		return strings.Contains(said, "not watched for") && strings.Contains(said, "pods: ") &&
			strings.Contains(said, "namespaces: ") && strings.Contains(said, "connection refused")
	})
	back()
	r.eventually("it says that all is well again",
		func() bool { return strings.Contains(r.agent.log.String(), "the API server is watched again") })
	if said := line(); !strings.HasSuffix(said, ": watched") || warned() != 1 {
		t.Errorf("%q, %d warnings", said, warned())
	}
}

// A failing watch of the node, by which the agent sees the startup taint, is reported, too, also by an agent with
// --uninstall.
func TestNodeIsNotWatched(t *testing.T) {
	for name, flags := range map[string][]string{
		"agent": nil, "uninstalling": {"--uninstall", "--runtime-version=containerd://2.1.4"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).withPrimary() // its account may not list and watch nodes
			r.startAgent(append(flags, "--log-level=info", "--startup-taint=example.com/not-ready")...)
			r.eventually("it warns", func() bool {
				return regexp.MustCompile(`level=warning msg="the API server cannot be watched.*node: nodes .*forbidden`).
					MatchString(r.agent.log.String())
			})
			r.ready()
			r.eventually("/readyz says it, too", func() bool {
				_, body := r.get("/readyz")
				return flags != nil || strings.Contains(body, "; node: nodes ")
			})
		})
	}
}
