package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/internal/files"
	"github.com/sirupsen/logrus"
)

// installation keeps the plugin installed.
type installation struct {
	config  install.Config
	off     bool   // somebody else does it
	path    string // of the file in which memory survives a restart of the agent
	log     *logrus.Logger
	metrics *metrics
	version func(context.Context) (string, error) // of the container runtime, from the node's object
	again   chan struct{}                         // the configuration has changed

	mu     sync.Mutex
	last   install.Pass
	passed bool
	said   string
	memory memory
}

// memory is what the next agent of this boot has to know. Its file lies beside the records, on a tmpfs.
type memory struct {
	ChainedSince     time.Time `json:"chainedSince"`               // when our entry came into the network for the last time
	DropInDistrusted bool      `json:"dropInDistrusted,omitempty"` // pods have bypassed a drop-in: this runtime does not read them
}

// memoryFile is its name in the state directory.
const memoryFile = "installation.json"

func newInstallation(o options, log *logrus.Logger, m *metrics, version func(context.Context) (string, error)) *installation {
	i := &installation{
		config: o.install, off: o.noInstall, path: filepath.Join(o.store.Dir, memoryFile), log: log, metrics: m,
		version: version, again: make(chan struct{}, 1),
	}
	if data, err := os.ReadFile(i.path); err == nil {
		_ = json.Unmarshal(data, &i.memory) // a torn file is no memory
	}
	return i
}

// run keeps the installation until the context ends, and leaves it in place.
func (i *installation) run(ctx context.Context) error {
	if i.off {
		<-ctx.Done()
		return nil
	}
	if i.asksVersion() {
		i.learnVersion(ctx, false)
	}
	for {
		keeping, stop := context.WithCancel(ctx)
		var asking sync.WaitGroup
		if i.asksVersion() {
			asking.Go(func() { i.learnVersion(keeping, true) })
		}
		var waiting sync.WaitGroup
		waiting.Go(func() {
			select {
			case <-i.again:
				stop()
			case <-keeping.Done():
			}
		})
		k := install.Keeper{Config: i.configuration(), Report: i.report}
		err := k.Run(keeping)
		stop()
		asking.Wait()
		waiting.Wait()
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

// learnVersion reads the runtime's version from the node's object: once, or until it comes. Meanwhile the entry is spliced,
// which every runtime reads.
func (i *installation) learnVersion(ctx context.Context, insist bool) {
	const pause = 10 * time.Second
	for {
		version, err := i.version(ctx)
		if err == nil && version != "" {
			i.mu.Lock()
			i.config.RuntimeVersion = version
			i.mu.Unlock()
			i.log.WithField("runtime", version).Info("learnt the version of the container runtime")
			if insist {
				i.change()
			}
			return
		}
		i.log.WithError(err).Debug("the version of the container runtime is not known yet")
		if !insist {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// change has the installation made again with the configuration of now.
func (i *installation) change() {
	select {
	case i.again <- struct{}{}:
	default:
	}
}

// distrustDropIn falls back to splicing, for as long as the node is up.
func (i *installation) distrustDropIn() {
	i.mu.Lock()
	used := i.last.Chained == install.DroppedIn && !i.memory.DropInDistrusted
	if used {
		i.memory.DropInDistrusted = true
		i.remember()
	}
	i.mu.Unlock()
	if used {
		i.log.Warn("the runtime does not read the drop-in: falling back to an entry in the primary's own file")
		i.change()
	}
}

// report takes note of a pass.
func (i *installation) report(p install.Pass) {
	for _, cause := range p.Repaired {
		i.metrics.repairs.WithLabelValues(string(cause)).Inc()
	}
	i.metrics.installed.Set(map[bool]float64{true: 1}[p.Ready])
	i.mu.Lock()
	defer i.mu.Unlock()
	i.last, i.passed = p, true
	entered := slices.ContainsFunc(p.Repaired, func(c install.Cause) bool {
		return c == install.CauseEntryMissing || c == install.CauseEntryChanged
	})
	if p.Ready && (entered || i.memory.ChainedSince.IsZero()) {
		i.memory.ChainedSince = time.Now()
		i.remember()
	}
	fields := logrus.Fields{}
	if len(p.Repaired) > 0 {
		fields["repaired"] = p.Repaired
	}
	if text := p.String(); text != i.said || len(p.Repaired) > 0 {
		i.said = text
		log := i.log.WithFields(fields)
		if p.Ready && p.Err == nil {
			log.Info(text)
		} else {
			log.Warn(text)
		}
	}
}

// remember writes the memory. Without it the next agent only knows less. The caller holds the lock.
func (i *installation) remember() {
	data, err := json.Marshal(i.memory)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(i.path), 0o700)
	}
	if err == nil {
		err = files.Replace(i.path, i.path+".new", bytes.NewReader(data), nil)
	}
	if err != nil {
		i.log.WithError(err).Warn("remembering the state of the installation")
	}
}

// chainedSince is when our entry came into the network, zero where it is not in it.
func (i *installation) chainedSince() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.last.Ready {
		return time.Time{}
	}
	return i.memory.ChainedSince
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
