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
	off       bool   // somebody else does it
	path      string // of the file in which memory survives a restart of the agent
	version   func(context.Context) (string, error)
	installed prometheus.Gauge
	contested prometheus.Gauge
	repairs   *prometheus.CounterVec // by cause
	log       *logrus.Logger
	again     chan struct{} // the configuration has changed
	logged    string        // the last state
	stored    memory        // what the file has; run's alone

	mu     sync.Mutex
	config install.Config
	last   install.Pass
	passed bool
	memory memory
	// repaired is the last repair.
	repaired inspect.Repair
}

// memory is what the next agent of this boot has to know. Its file lies beside the records, on a tmpfs.
type memory struct {
	// ChainedSince is when our entry came into the network for the last time.
	ChainedSince time.Time `json:"chainedSince"`
	// ChainedFirst is when it came for the first time with the settings that have this hash: by others, other pods were in
	// the mesh.
	ChainedFirst time.Time `json:"chainedFirst,omitzero"`
	Settings     string    `json:"settings,omitempty"`
	// DropInDistrusted says that pods have bypassed a drop-in: this runtime does not read them.
	DropInDistrusted bool `json:"dropInDistrusted,omitempty"`
}

// memoryFile is its name in the state directory.
const memoryFile = "installation.json"

// Times about the version of the container runtime.
const (
	versionLate  = 5 * time.Second  // the first installation waits that long for it
	versionRetry = 10 * time.Second // between two attempts to learn it
)

// newInstallation returns what keeps config installed, unless it is off, and has its memory in the file of that path.
// version reads which container runtime the node has.
func newInstallation(
	config install.Config, off bool, path string, version func(context.Context) (string, error),
	installed, contested prometheus.Gauge, repairs *prometheus.CounterVec, log *logrus.Logger,
) *installation {
	i := &installation{
		config: config, off: off, path: path, version: version, installed: installed, contested: contested,
		repairs: repairs, log: log, again: make(chan struct{}, 1),
	}
	if data, err := os.ReadFile(i.path); err == nil {
		_ = json.Unmarshal(data, &i.memory) // a torn file is no memory
	}
	if hash := fmt.Sprintf("%x", sha256.Sum256(config.Entry.Text())); i.memory.Settings != hash {
		i.memory.Settings, i.memory.ChainedFirst = hash, time.Time{}
	}
	i.stored = i.memory
	if off && !i.memory.ChainedFirst.IsZero() { // others serve the node's pods meanwhile
		i.memory.ChainedFirst = time.Time{}
		i.remember()
	}
	return i
}

// run keeps the installation until the context ends, and leaves it in place.
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
	defer i.remember() // what was learnt since the last pass
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

// configuration is the one to keep now.
func (i *installation) configuration() install.Config {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.config
	if i.memory.DropInDistrusted {
		c.DropIn = install.DropInNever
	}
	return c
}

// asksVersion reports whether the way to install depends on a version that is not known.
func (i *installation) asksVersion() bool {
	c := i.configuration()
	return c.Mode == install.ModeChain && c.DropIn == install.DropInAuto && c.RuntimeVersion == ""
}

// learnVersion reads the runtime's version from the node's object, and reports whether it is known now.
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

// begin asks for the version, if it has to be known, until it is. It returns when it is, but after versionLate without
// it: the entry is spliced then, which every runtime reads. The request goes on, since all agents may ask at once.
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
		for !known && i.asksVersion() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(kube.Spread(versionRetry)):
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

// change has the installation made again with the configuration of now.
func (i *installation) change() {
	select {
	case i.again <- struct{}{}:
	default:
	}
}

// DistrustDropIn falls back to splicing, for as long as the node is up.
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

// report takes note of a pass.
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

// warn says that changes of the installation are not noticed at once.
func (i *installation) warn(err error) { i.log.WithError(err).Warn("watching the installation") }

// remember writes the memory if the file has another. Without it the next agent only knows less. It runs in run alone,
// so that no older memory comes after a newer one.
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

// ChainedSince is when our entry came into the network, zero where it is not in it. While somebody takes it out again
// and again it is now: no pod's network is known to have been made with it, so no runtime passed over one, and each
// that waits came too early.
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

// ChainedFirst is when our entry, as it is now, came into the network for the first time since the node was booted,
// zero where it never has: whoever made pods' networks before was in charge of them.
func (i *installation) ChainedFirst() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.memory.ChainedFirst
}

// attached says whether the directories are still the node's.
func (i *installation) attached() (bool, string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.last.Detached != "" {
		return false, i.last.Detached
	}
	return true, "the node's"
}

// ready says whether the plugin is installed and chained, and what is missing.
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
