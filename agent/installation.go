package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/internal/files"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// installation keeps the plugin installed.
type installation struct {
	off       bool   // --no-install: somebody else installs the plugin
	path      string // of memory's file
	version   func(context.Context) (string, error)
	installed prometheus.Gauge
	contested prometheus.Gauge
	repairs   *prometheus.CounterVec // labelled by cause
	log       *logrus.Logger
	again     chan struct{} // signals that the configuration has changed
	logged    string        // the state that was logged last
	stored    memory        // the content of memory's file; used by run alone

	mu     sync.Mutex
	config install.Config
	last   install.Pass
	passed bool
	memory memory
	// repaired is the last repair; zero if there was none.
	repaired inspect.Repair
}

// memory is what the next agent on this boot of the node has to know. Its file is in the records' directory, on a
// tmpfs, so that a reboot removes it.
type memory struct {
	// ChainedSince is when our entry was last added to the network.
	ChainedSince time.Time `json:"chainedSince"`
	// ChainedFirst is when our entry was first added with the settings whose SHA-256 is Settings. Other settings reset
	// it, because they put other pods into the mesh.
	ChainedFirst time.Time `json:"chainedFirst,omitzero"`
	Settings     string    `json:"settings,omitempty"`
	// DropInDistrusted says that this runtime does not read drop-ins: in spite of ours, pods were made without the
	// plugin.
	DropInDistrusted bool `json:"dropInDistrusted,omitempty"`
}

// memoryFile is the name of memory's file in the state directory.
const memoryFile = "installation.json"

// Times for reading the version of the container runtime.
const (
	versionLate  = 5 * time.Second  // how long the first installation waits for it
	versionRetry = 10 * time.Second // between the first two attempts to read it
	versionRare  = 5 * time.Minute  // between two attempts, at most
)

// newInstallation returns an installation that keeps config installed, unless off is true. It keeps its memory in the
// file path. version reads the name and version of the node's container runtime.
func newInstallation(
	config install.Config, off bool, path string, version func(context.Context) (string, error),
	installed, contested prometheus.Gauge, repairs *prometheus.CounterVec, log *logrus.Logger,
) *installation {
	i := &installation{
		config: config, off: off, path: path, version: version, installed: installed, contested: contested,
		repairs: repairs, log: log, again: make(chan struct{}, 1),
	}
	if data, err := os.ReadFile(i.path); err == nil {
		_ = json.Unmarshal(data, &i.memory) // a damaged file counts as none
	}
	if hash := fmt.Sprintf("%x", sha256.Sum256(config.Entry.Text())); i.memory.Settings != hash {
		i.memory.Settings, i.memory.ChainedFirst = hash, time.Time{}
	}
	i.stored = i.memory
	if off && !i.memory.ChainedFirst.IsZero() { // meanwhile somebody else's installation made the pods' networks
		i.memory.ChainedFirst = time.Time{}
		i.remember()
	}
	return i
}

// run keeps the plugin installed until ctx ends. It leaves the installation in place then.
func (i *installation) run(ctx context.Context) error {
	if i.off {
		<-ctx.Done()
		return nil
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, stopAsking := context.WithCancel(ctx)
	defer stopAsking()
	i.begin(ctx, &asking)
	defer i.remember() // what changed after the last pass
	for {
		keeping, stop := context.WithCancel(ctx)
		var helpers sync.WaitGroup
		helpers.Go(func() {
			select {
			case <-i.again:
				stop()
			case <-keeping.Done():
			}
		})
		k := install.Keeper{Config: i.configuration(), Report: i.report, Warn: i.warn}
		err := k.Run(keeping)
		stop()
		helpers.Wait()
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// configuration returns the configuration that applies now.
func (i *installation) configuration() install.Config {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.config
	if i.memory.DropInDistrusted {
		c.DropIn = install.DropInNever
	}
	return c
}

// asksVersion reports whether the way to install depends on the runtime's version and this is not known yet.
func (i *installation) asksVersion() bool {
	c := i.configuration()
	return c.Mode == install.ModeChain && c.DropIn == install.DropInAuto && c.RuntimeVersion == ""
}

// learnVersion reads the runtime's version from the Node object, and reports whether it is known now.
func (i *installation) learnVersion(ctx context.Context) bool {
	version, err := i.version(ctx)
	if err != nil || version == "" {
		i.log.WithError(err).Debug("the version of the container runtime is not known yet")
		return false
	}
	i.mu.Lock()
	i.config.RuntimeVersion = version
	i.mu.Unlock()
	i.log.WithField("runtime", version).Info("learnt the version of the container runtime")
	return true
}

// begin reads the runtime's version, if it is needed. It returns once the version is known, but after versionLate in
// any case: the entry is then spliced, which works with every runtime. The request continues in the background, because
// all agents may ask at the same time.
func (i *installation) begin(ctx context.Context, asking *sync.WaitGroup) {
	if !i.asksVersion() {
		return
	}
	var late atomic.Bool
	first := make(chan struct{})
	asking.Go(func() {
		known := i.learnVersion(kube.Patient(ctx))
		if close(first); known && !late.Load() {
			return
		}
		pause := kube.Backoff(versionRetry, versionRare)
		for !known && i.asksVersion() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause()):
				known = i.learnVersion(kube.Patient(ctx))
			}
		}
		i.change()
	})
	select {
	case <-first:
	case <-time.After(versionLate):
		late.Store(true)
	case <-ctx.Done():
	}
}

// change makes run start again with the present configuration.
func (i *installation) change() {
	select {
	case i.again <- struct{}{}:
	default:
	}
}

// DistrustDropIn replaces a drop-in by an entry in the primary's file, until the node is rebooted.
func (i *installation) DistrustDropIn() {
	i.mu.Lock()
	used := i.last.Chained == install.DroppedIn && !i.memory.DropInDistrusted
	i.memory.DropInDistrusted = i.memory.DropInDistrusted || used
	i.mu.Unlock()
	if used {
		i.log.Warn("the runtime does not read the drop-in: falling back to an entry in the primary's own file")
		i.change()
	}
}

// report takes the result of a pass: metrics, memory, log.
func (i *installation) report(p install.Pass) {
	for _, cause := range p.Repaired {
		i.repairs.WithLabelValues(string(cause)).Inc()
	}
	i.installed.Set(map[bool]float64{true: 1}[p.Ready])
	i.contested.Set(map[bool]float64{true: 1}[p.Contested > 0])
	entered := slices.ContainsFunc(p.Repaired, func(c install.Cause) bool {
		return c == install.CauseEntryMissing || c == install.CauseEntryChanged
	})
	i.mu.Lock()
	i.last, i.passed = p, true
	if len(p.Repaired) > 0 {
		i.repaired = inspect.Repair{Time: time.Now().UTC()}
		for _, cause := range p.Repaired {
			i.repaired.Causes = append(i.repaired.Causes, string(cause))
		}
	}
	if p.Ready && (entered || i.memory.ChainedSince.IsZero()) {
		i.memory.ChainedSince = time.Now()
	}
	if slices.Contains(p.Repaired, install.CauseEntryChanged) {
		i.memory.ChainedFirst = time.Time{}
	}
	if p.Ready && i.memory.ChainedFirst.IsZero() {
		i.memory.ChainedFirst = i.memory.ChainedSince
	}
	i.mu.Unlock()
	i.remember()
	text := p.String()
	if text == i.logged && len(p.Repaired) == 0 {
		return
	}
	i.logged = text
	log, level := logrus.NewEntry(i.log), logrus.WarnLevel
	if len(p.Repaired) > 0 {
		log = log.WithField("repaired", p.Repaired)
	}
	if p.Ready && p.Err == nil {
		level = logrus.InfoLevel
	}
	log.Log(level, text)
}

// warn logs that changes to the installation are not noticed at once.
func (i *installation) warn(err error) { i.log.WithError(err).Warn("watching the installation") }

// remember writes the memory if it differs from the file's. If it cannot, the next agent only knows less. Only run's
// goroutine calls it, so that an older memory never replaces a newer one.
func (i *installation) remember() {
	i.mu.Lock()
	memory := i.memory
	i.mu.Unlock()
	if memory == i.stored {
		return
	}
	data, err := json.Marshal(memory)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(i.path), 0o700)
	}
	if err == nil {
		err = files.Replace(i.path, i.path+".new", bytes.NewReader(data), nil)
	}
	if err == nil {
		i.stored = memory
	} else {
		i.log.WithError(err).Warn("remembering the state of the installation")
	}
}

// ChainedSince returns when our entry was last added to the network, zero if it is not there. While somebody removes it
// again and again, this is the present: then no pod's network is known to have been made with the entry, so no runtime
// has ignored it, and each waiting pod came too early.
func (i *installation) ChainedSince() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.last.Contested > 0 {
		return time.Now()
	}
	if !i.last.Ready {
		return time.Time{}
	}
	return i.memory.ChainedSince
}

// ChainedFirst returns when our entry, with its present settings, was first added since the node's boot, zero if it
// never was. Pods' networks made before that were not this installation's responsibility.
func (i *installation) ChainedFirst() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.memory.ChainedFirst
}

// attached reports whether the mounted CNI directories are still those of the node.
func (i *installation) attached() (bool, string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.last.Detached != "" {
		return false, i.last.Detached
	}
	return true, "the node's"
}

// ready reports whether the plugin is installed and chained. The text says what is missing.
func (i *installation) ready() (bool, string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.off:
		return true, "left to somebody else (--no-install)"
	case !i.passed:
		return false, "not looked at yet"
	}
	return i.last.Ready && i.last.Err == nil, strings.ReplaceAll(i.last.String(), "\n", ";")
}
