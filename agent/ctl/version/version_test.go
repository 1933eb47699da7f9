package version

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/status"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/golden"
)

// two returns two nodes whose agents have answered.
func two() status.Status {
	s := status.Status{}
	for _, name := range []string{"node-a", "node-b"} {
		s.Items = append(s.Items, status.Node{Name: name, Verdict: status.Well, Pod: "mesh-network/agent-" + name,
			Release: "1.4.0", Agent: &inspect.Node{
				Node: name, Agent: "v1.4.0", Questions: inspect.Questions, Installation: inspect.Installation{Managed: true},
				Plugin: inspect.Plugin{Path: "/opt/cni/bin/istio-pod-network", Version: "v1.4.0",
					SHA256: strings.Repeat("0123456789abcdef", 4)}}})
	}
	return s
}

// older gives the agent and the plugin of node-b another release.
func older(release string) func(*status.Status) {
	return func(s *status.Status) {
		s.Items[1].Release = strings.TrimPrefix(release, "v")
		s.Items[1].Agent.Agent, s.Items[1].Agent.Plugin.Version = release, release
	}
}

// unasked makes node-b's agent not answer.
func unasked(release, why string) func(*status.Status) {
	return func(s *status.Status) {
		s.Items[1] = status.Node{Name: "node-b", Verdict: status.NotAsked, Pod: s.Items[1].Pod, Release: release,
			Unasked:  errors.New(why),
			Findings: []output.Finding{{What: "its agent could not be asked: " + why, Next: "kubectl logs"}}}
	}
}

// Output about versions, with the exit status.
func TestVersion(t *testing.T) {
	const unknown = `istio-pod-network-agent: unexpected argument "inspect"; valid: flags`
	for name, test := range map[string]struct {
		tool   string
		make   func(*status.Status)
		status int
	}{
		"fits":         {"v1.4.0", func(*status.Status) {}, outcome.Well},
		"older-by-one": {"v1.4.0", older("v1.3.7"), outcome.Well},
		"older-by-two": {"v1.4.0", older("v1.2.0"), outcome.NotWell},
		// The tool fits with each of them, but they do not fit with each other.
		"agents-apart":       {"v1.3.0", older("v1.2.9"), outcome.NotWell},
		"tool-too-old":       {"v1.2.0", func(*status.Status) {}, outcome.NotWell},
		"another-major":      {"v2.4.0", func(*status.Status) {}, outcome.NotWell},
		"no-release":         {"3ebe253-dirty", older("v1.3.0"), outcome.Well},
		"without-a-tag":      {"v0.0.0-20261130013643-e4686fcbf8e0", older("v1.3.0"), outcome.Well},
		"forbidden":          {"v1.4.0", unasked("1.4.0", "forbidden"), outcome.NotAsked},
		"cannot-answer":      {"v1.4.0", unasked("1.3.0", unknown), outcome.Well},
		"cannot-answer-old":  {"v1.4.0", unasked("1.2.0", unknown), outcome.NotWell},
		"cannot-answer-what": {"v1.4.0", unasked("", unknown), outcome.NotAsked},
		"foreign-plugin":     {"v1.4.0", func(s *status.Status) { s.Items[1].Agent.Plugin.Version = "" }, outcome.NotWell},
		"older-plugin": {"v1.4.0", func(s *status.Status) { s.Items[1].Agent.Plugin.Version = "v1.3.0" },
			outcome.NotWell},
		"no-plugin": {"v1.4.0", func(s *status.Status) {
			s.Items[1].Agent.Plugin = inspect.Plugin{Path: "/opt/cni/bin/istio-pod-network"}
		}, outcome.NotWell},
		"not-managed": {"v1.4.0", func(s *status.Status) {
			s.Items[1].Agent.Plugin, s.Items[1].Agent.Installation = inspect.Plugin{}, inspect.Installation{}
		}, outcome.Well},
		"unlisted": {"v1.4.0", func(s *status.Status) {
			s.Unlisted = []string{"nodes that lack an agent (it needs the verb list on nodes): forbidden"}
		}, outcome.NotAsked},
		"fewer-questions": {"v1.4.0", func(s *status.Status) { s.Items[1].Agent.Questions = []string{} }, outcome.Well},
	} {
		t.Run(name, func(t *testing.T) {
			s := two()
			test.make(&s)
			for format, file := range map[output.Format]string{output.Table: name + ".txt", output.Wide: name + "-wide.txt",
				output.JSON: name + ".json", output.YAML: name + ".yaml"} {
				if format != output.Table && name != "fits" && (format != output.JSON || name != "cannot-answer-old") {
					continue
				}
				var out bytes.Buffer
				err := Of(s, test.tool).show(output.Writer{Out: &out, Format: format})
				if got := outcome.StatusOf(err); got != test.status {
					t.Errorf("%s: status %d, want %d: %v", format, got, test.status, err)
				}
				golden.Compare(t, filepath.Join("testdata", file), out.String())
				if format == output.Table || format == output.Wide {
					golden.Fits(t, file, out.String(), output.Width)
				}
			}
		})
	}
}

// An agent that does not report its questions can be asked about its node.
func TestQuestionsUnsaid(t *testing.T) {
	s := two()
	s.Items[0].Agent.Questions = nil
	if cannot := Of(s, "v1.4.0").Items[0].CannotAnswer; len(cannot) != len(inspect.Questions)-1 {
		t.Error(cannot)
	}
}

// Without a cluster, or if it does not answer, the tool reports its own version.
func TestClient(t *testing.T) {
	for format, want := range map[output.Format]string{
		output.Table: "This tool is of v1.4.0.\n",
		output.JSON: "{\n  \"apiVersion\": \"" + output.APIVersion + "\",\n  \"kind\": \"Version\",\n" +
			"  \"tool\": \"v1.4.0\"\n}\n",
	} {
		var out bytes.Buffer
		err := clientOnly("v1.4.0").show(output.Writer{Out: &out, Format: format})
		if err != nil || out.String() != want {
			t.Errorf("%v, %q", err, out.String())
		}
	}
}
