// Package crio plays CRI-O in tests, which cannot run the real one. It runs a driver that calls CNI plugins as CRI-O's
// ocicni does, with the libcni of that release. The driver is one program. It is built once for each generation of
// libcni, with a go.mod of its own. What depends on CRI-O's version:
//
//	before 1.29  runtimeConfig has no annotations of the pod
//	from 1.32    at its start, CRI-O calls STATUS until it succeeds, and then GC
//	from 1.33    drop-ins are read (libcni 1.3); the configuration that libcni caches has none
//	from 1.34    a sandbox whose DEL has failed is removed at the second attempt, even if DEL fails again
//
// All versions reload the networks when a file is created, written or renamed in the directories of configurations or
// plugins, and then ask each plugin for its versions. They call CHECK after each ADD and, at their start, for every
// sandbox. They call CHECK and DEL with the configuration that libcni cached at ADD.
package crio

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio/wire"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/await"
)

// Release is a release of CRI-O.
type Release struct {
	Minor  int
	libcni string   // directory of the go.mod with its libcni; empty for this module's
	flags  []string // build flags
}

// Releases has one release for each generation of libcni.
var Releases = []Release{
	{Minor: 28, libcni: "libcni-1.1", flags: []string{"-tags=libcni1_1"}}, // 1.1.2
	{Minor: 31, libcni: "libcni-1.2"},                                     // 1.2.3
	{Minor: 37},                                                           // 1.3
}

// Version returns the version in the form of a node's status.nodeInfo.containerRuntimeVersion.
func (r Release) Version() string { return "cri-o://" + r.String() }

// String returns the version alone.
func (r Release) String() string { return fmt.Sprintf("1.%d.0", r.Minor) }

// Asks reports whether the release calls STATUS and GC at its start.
func (r Release) Asks() bool { return r.Minor >= 32 }

// RelaysAnnotations reports whether the release passes the pod's annotations to plugins.
func (r Release) RelaysAnnotations() bool { return r.Minor >= 29 }

// Forgets reports whether a sandbox whose DEL has failed is removed at the next attempt.
func (r Release) Forgets() bool { return r.Minor >= 34 }

func (r Release) program() string { return "crio-" + r.String() }

// Build builds the drivers of all releases into bin.
func Build(bin string) error {
	for _, r := range Releases {
		flags := r.flags
		if r.libcni != "" {
			flags = append(flags, "-modfile="+filepath.Join("crio", r.libcni, "go.mod"))
		}
		if err := build.ConformanceAs(filepath.Join(bin, r.program()), "./crio/driver", flags...); err != nil {
			return err
		}
	}
	return nil
}

// Runtime is a running CRI-O. It ends with the test.
type Runtime struct {
	testing.TB
	Release
	config    wire.Config
	cmd       *exec.Cmd
	requests  *json.Encoder
	responses *json.Decoder
	end       func()
	log       *await.Output
}

// Start starts CRI-O. Its files are in directories below dir.
func Start(t testing.TB, release Release, dir string, config wire.Config) *Runtime {
	t.Helper()
	config.Minor = release.Minor
	config.CacheDir, config.NetNSDir = filepath.Join(dir, "cache"), filepath.Join(dir, "netns")
	config.StateDir = filepath.Join(dir, "crio")
	r := &Runtime{TB: t, Release: release, config: config, log: await.NewOutput(t)}
	await.Explain(t, "log of the driver", r.log.String)
	t.Cleanup(func() {
		r.end()
		pinned, _ := filepath.Glob(filepath.Join(config.NetNSDir, "*"))
		for _, path := range pinned {
			await.Must(t, isolated.RemoveNetNS(path))
		}
	})
	r.begin()
	return r
}

// begin starts the driver.
func (r *Runtime) begin() {
	r.Helper()
	config, err := json.Marshal(r.config)
	await.Must(r, err)
	r.cmd = exec.Command(filepath.Join(isolated.BinDir(), r.program()), string(config))
	r.cmd.Stderr = r.log.File
	in, err := r.cmd.StdinPipe()
	await.Must(r, err)
	out, err := r.cmd.StdoutPipe()
	await.Must(r, err)
	r.requests, r.responses = json.NewEncoder(in), json.NewDecoder(out)
	cmd := r.cmd
	await.Must(r, cmd.Start())
	r.end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// ask sends a request to the driver and returns its response.
func (r *Runtime) ask(q wire.Request) (a wire.Response) {
	r.Helper()
	await.Must(r, r.requests.Encode(q))
	await.Must(r, r.responses.Decode(&a))
	return a
}

// Restart ends CRI-O and starts it again.
func (r *Runtime) Restart() {
	r.Helper()
	r.end()
	r.begin()
}

// Reboot is a restart that first removes what a reboot of the node removes: the namespaces of all sandboxes, and what
// gone removes.
func (r *Runtime) Reboot(gone func()) {
	r.Helper()
	r.end()
	defer r.begin()
	gone()
	pinned, err := filepath.Glob(filepath.Join(r.config.NetNSDir, "*"))
	await.Must(r, err)
	for _, path := range pinned {
		await.Must(r, isolated.RemoveNetNS(path))
	}
}

// Network returns the network of the next pod, with the types of its plugins.
func (r *Runtime) Network() wire.NetworkOf {
	r.Helper()
	return r.ask(wire.Request{Do: wire.Network}).Network
}

// Run makes the sandbox of a pod.
func (r *Runtime) Run(pod wire.Pod) (wire.Sandbox, error) {
	r.Helper()
	a := r.ask(wire.Request{Do: wire.Run, Pod: pod})
	return a.Sandbox, failure(a)
}

// Stop stops a sandbox. If it does not exist, Stop succeeds.
func (r *Runtime) Stop(id string) error {
	r.Helper()
	return failure(r.ask(wire.Request{Do: wire.Stop, ID: id}))
}

func failure(a wire.Response) error {
	if a.Error == "" {
		return nil
	}
	return errors.New(a.Error)
}

// Sandboxes returns the existing sandboxes by ID.
func (r *Runtime) Sandboxes() map[string]wire.Sandbox {
	r.Helper()
	all := map[string]wire.Sandbox{}
	for _, s := range r.ask(wire.Request{Do: wire.Sandboxes}).Sandboxes {
		all[s.ID] = s
	}
	return all
}

// Calls returns the calls of plugins since it was last called, or since the start.
func (r *Runtime) Calls() []wire.Call { r.Helper(); return r.ask(wire.Request{Do: wire.Calls}).Calls }

// Of returns the verbs with which a plugin was called, in order, without VERSION. If containerID is not empty, it
// returns those for this container alone.
func Of(calls []wire.Call, plugin, containerID string) string {
	var verbs []string
	for _, c := range calls {
		if c.Plugin == plugin && c.Verb != "VERSION" && (containerID == "" || c.ContainerID == containerID) {
			verbs = append(verbs, c.Verb)
		}
	}
	return strings.Join(verbs, " ")
}

// Said returns CRI-O's log, with the plugins' output.
func (r *Runtime) Said() string { return r.log.String() }

// Cached returns the names of the files in libcni's cache.
func (r *Runtime) Cached() []string {
	r.Helper()
	entries, err := os.ReadDir(filepath.Join(r.config.CacheDir, "results"))
	if err != nil && !os.IsNotExist(err) {
		r.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
