package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// TestMain turns the test binary into an agent of another user if agentEnv is set (TestAgentOfAnotherUser).
func TestMain(m *testing.M) {
	if path := os.Getenv(agentEnv); path != "" {
		impostor(path)
		return
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(filepath.Dir(built))
	}
	os.Exit(code)
}

var built string

// binary builds the plugin once and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "plugin-test-")
	if err != nil {
		return "", err
	}
	built = filepath.Join(dir, "istio-pod-network")
	build := exec.Command("go", "build", "-o", built, "./istio-pod-network")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the plugin: %w\n%s", err, out)
	}
	return built, nil
})

// object is a JSON object under construction.
type object map[string]any

const (
	sandbox   = "6f1e0b9b1c3c"
	podPath   = "/fake/netns/pod" // rig.open returns the fake namespace for it
	podNetNS  = "boot/4026532290/8193"
	podArgs   = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_UID=0f3b2a52"
	previous  = `{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"}]}`
	unaskable = "/nonexistent/agent.sock"
)

// mesh are the annotations of a pod into which Istio's injector has put a sidecar.
var mesh = object{annotation.SidecarStatus: "{}"}

// rig is a plugin without a process: a fake network namespace, a function as agent, and buffers as outputs.
type rig struct {
	testing.TB
	plugin
	out, log bytes.Buffer
	netns    netfilter.Fake
	netnsID  record.NetNS
	opened   int
	answer   func(facts.Request) (redirect.Pod, error)
	asked    []facts.Request
	store    record.Store
	conf     object
	args     skel.CmdArgs
}

// newRig returns a rig for the ADD of a mesh pod that needs no agent.
func newRig(t testing.TB) *rig {
	r := &rig{TB: t, netnsID: podNetNS, store: record.Store{Dir: filepath.Join(t.TempDir(), "state")}}
	r.plugin = plugin{
		stdout: &r.out, stderr: &r.log, open: r.openFake, now: time.Now, getenv: os.Getenv,
		usable: func(netfilter.Backend, redirect.RuleSet) error { return nil },
		ask: func(_ context.Context, socket string, q facts.Request) (redirect.Pod, error) {
			r.asked = append(r.asked, q)
			if r.answer == nil {
				return redirect.Pod{}, errors.New("nobody should ask " + socket)
			}
			return r.answer(q)
		},
	}
	r.conf = object{
		"cniVersion": "1.1.0", "name": "podnet", "type": "istio-pod-network", "stateDir": r.store.Dir, "agentSocket": "",
		"prevResult": json.RawMessage(previous),
	}
	r.args = skel.CmdArgs{ContainerID: sandbox, Netns: podPath, IfName: "eth0", Args: podArgs}
	r.annotate(mesh)
	return r
}

// annotate sets the annotations that the runtime passes in runtimeConfig.
func (r *rig) annotate(annotations object) {
	r.conf["runtimeConfig"] = object{annotationsCapability: annotations}
}

func (r *rig) openFake(path string) (namespace, error) {
	if path != podPath {
		real, err := openNamespace(path)
		if err == nil { // a namespace that exists is no test's and may be the host's: never write rules to it
			real.Close()
			r.Errorf("opening %q works", path)
			err = errors.New("no namespace for a test")
		}
		return namespace{}, err
	}
	r.opened++
	return namespace{&r.netns, r.netnsID}, nil
}

// call runs one verb and returns its error. Every verb has to log exactly one line.
func (r *rig) call(verb string) *types.Error {
	r.Helper()
	r.out.Reset()
	r.log.Reset()
	stdin, err := json.Marshal(r.conf)
	if err != nil {
		r.Fatal(err)
	}
	args, funcs := r.args, r.funcs()
	args.StdinData = stdin
	run := map[string]func(*skel.CmdArgs) error{
		"ADD": funcs.Add, "CHECK": funcs.Check, "DEL": funcs.Del, "GC": funcs.GC, "STATUS": funcs.Status,
	}[verb]
	err = run(&args)
	if log := r.log.String(); strings.Count(log, "\n") != 1 || !strings.HasSuffix(log, "\n") ||
		!strings.Contains(log, "verb="+verb) {
		r.Errorf("%s logged %q, want one line", verb, log)
	}
	if (err != nil || verb != "ADD") && r.out.Len() > 0 {
		r.Errorf("%s (error: %v) printed %q", verb, err, r.out.String())
	}
	if opened := r.netns.Calls["Close"]; r.opened != opened {
		r.Errorf("%d namespaces opened, %d closed", r.opened, opened)
	}
	if err == nil {
		return nil
	}
	var failure *types.Error
	if !errors.As(err, &failure) {
		r.Fatalf("%s: error %v is no CNI error", verb, err)
	}
	return failure
}

// must runs a verb and fails the test if it returns an error.
func (r *rig) must(verb string) {
	r.Helper()
	if err := r.call(verb); err != nil {
		r.Fatalf("%s: code %d: %v", verb, err.Code, err)
	}
}

// fails runs a verb, which must fail with the code and a text that contains all words.
func (r *rig) fails(verb string, code uint, words ...string) {
	r.Helper()
	err := r.call(verb)
	if err == nil {
		r.Fatalf("%s succeeds, want code %d", verb, code)
	}
	if err.Code != code {
		r.Errorf("%s: code %d, want %d: %v", verb, err.Code, code, err)
	}
	says(r, err.Error(), append(words, prefix)...)
	says(r, r.log.String(), "level=error", fmt.Sprintf("code=%d", code))
}

// says fails the test unless the text contains all words.
func says(t testing.TB, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
}

// record returns the attachment's record.
func (r *rig) record() record.Record {
	r.Helper()
	got, err := r.store.Get(r.args.ContainerID, r.args.IfName)
	if err != nil {
		r.Fatal(err)
	}
	return got
}

// clean fails the test if a record, a temporary file, or anything in the namespace is left.
func (r *rig) clean() {
	r.Helper()
	if dump := r.netns.Dump(); dump != "" {
		r.Errorf("left in the namespace:\n%s", dump)
	}
	r.noRecord()
}

func (r *rig) noRecord() {
	r.Helper()
	if files, _ := filepath.Glob(filepath.Join(r.store.Pods(), "*")); len(files) > 0 {
		r.Errorf("left: %q", files)
	}
}

// redirected fails the test unless the namespace has the rules of these settings.
func (r *rig) redirected(settings string) {
	r.Helper()
	spec, err := redirect.ParseSpec([]byte(settings))
	if err != nil {
		r.Fatal(err)
	}
	if dump, want := r.netns.Dump(), spec.RuleSet().String(); !strings.HasPrefix(dump, want) {
		r.Errorf("the namespace holds\n%s\nwant\n%s", dump, want)
	}
}

// brokenPipe is the stdout of a plugin whose runtime no longer reads.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
