package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

func TestPanic(t *testing.T) {
	r := newRig(t)
	r.conf["agentSocket"] = unaskable
	r.answer = func(facts.Request) (redirect.Pod, error) { panic("at the disco") }
	r.fails("ADD", types.ErrInternal, "panic in ADD: at the disco", "process_test.go")
	r.clean()
}

// Every error becomes a CNI error, because the runtime understands no other.
func TestOtherErrors(t *testing.T) {
	r := newRig(t)
	err := r.guard("ADD", func(*call, *skel.CmdArgs) error { return fmt.Errorf("deep: %w", errors.New("trouble")) })(
		&skel.CmdArgs{})
	var failure *types.Error
	if !errors.As(err, &failure) || failure.Code != types.ErrInternal || failure.Msg != prefix+"deep: trouble" {
		t.Errorf("%#v", err)
	}
}

func TestLogLevel(t *testing.T) {
	for level, lines := range map[string]int{"debug": 1, "info": 1, "warning": 0, "warn": 0, "error": 0} {
		r := newRig(t)
		r.conf["logLevel"] = level
		r.conf["prevResult"] = "RESULT"
		r.addRaw("RESULT", previous)
		if got := strings.Count(r.log.String(), "\n"); got != lines {
			t.Errorf("%s: logged %q", level, r.log.String())
		}
	}
	r := newRig(t)
	r.conf["logLevel"], r.conf["backend"] = "error", "x"
	r.fails("ADD", 7)
}

// The log has one line and the error is short, whatever the input contains.
func TestHugeValues(t *testing.T) {
	for name, value := range map[string]string{
		"long": strings.Repeat("x", 300<<10), "lines": "a\nb\r\nc", "multibyte": strings.Repeat("é", 4000),
		"invalid": "\xff\xfe",
		"items":   strings.Repeat("80,", 100000),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.annotate(object{annotation.SidecarStatus: "", annotation.ExcludeInboundPorts: value})
			err := r.call("ADD")
			if err == nil || len(err.Error()) > 1000 {
				t.Errorf("%.2000v", err)
			}
			says(t, err.Error(), annotation.ExcludeInboundPorts, "valid: a comma-separated list of ports 0 to 65535")
		})
	}
}

func TestBounded(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("é", 400), strings.Repeat("é", 401),
		strings.Repeat("xé", 5000)} {
		got := bounded(text)
		if len(text) <= 800 && got != text || len(got) > 810 || strings.ToValidUTF8(got, "") != got {
			t.Errorf("%d bytes became %d: %q", len(text), len(got), got)
		}
	}
}

// A person who runs the program by hand is told what it is.
func TestPerson(t *testing.T) {
	for name, test := range map[string]struct {
		args           string
		status         int
		stdout, stderr string
	}{
		"version": {"--version", 0, "istio-pod-network ", ""},
		"help":    {"--help", 0, "cnitool", ""},
		"short":   {"-h", 0, "K8S_POD_NAME", ""},
		"nothing": {"", 0, "", "This is a CNI plugin"},
		"unknown": {"--frobnicate", 2, "", `unexpected argument "--frobnicate"; valid: ` +
			"--version or --help, alone; see --help"},
		"too many":  {"--help --version", 2, "", `unexpected argument "--version"; valid: --version or --help, alone`},
		"a word":    {"--version x", 2, "", `unexpected argument "x"`},
		"ADD typed": {"ADD", 2, "", "unexpected argument"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			p := program.Program{Name: "istio-pod-network", Help: help, Stdout: &stdout, Stderr: &stderr}
			if status := person(p, strings.Fields(test.args)); status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			if (test.stdout == "") != (stdout.Len() == 0) || (test.stderr == "") != (stderr.Len() == 0) {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
			says(t, stdout.String(), test.stdout)
			says(t, stderr.String(), test.stderr)
		})
	}
}
