package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/istio-pod-network/controller/agent/answer"
	"github.com/istio-pod-network/controller/agent/health"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/agent/patrol"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/sirupsen/logrus"
)

// agent has all parts of the program.
type agent struct {
	options
	log          *logrus.Logger
	boot         record.BootID
	metrics      *metrics
	api          *kube.Client
	pods         *kube.Pods
	namespaces   *kube.Namespaces
	taints       *kube.Taints // nil without --startup-taint
	answerer     *answer.Answerer
	records      *mark.Index
	marker       *mark.Marker
	installation *installation
	patrol       *patrol.Patrol
	checks       checks
	flushEvents  func()
	web          *health.Server
	watches      watches
	serving      atomic.Bool // whether the plugin's socket is served
}

// newAgent makes the parts and connects them. It sends no request yet.
func newAgent(o options, log *logrus.Logger) (*agent, error) {
	boot, err := record.ReadBootID()
	if err != nil {
		return nil, err
	}
	a := &agent{options: o, log: log, boot: boot, metrics: newMetrics(), web: health.NewServer(o.listen, log)}
	o.kube.Count = a.metrics.requested
	if a.api, err = kube.Connect(o.kube); err != nil {
		return nil, err
	}
	queue := mark.NewQueue()
	gid := o.policy.Redirect.ProxyGID
	if a.pods, err = kube.NewPods(a.api.PodsOf(o.node, gid), gid, queue.Add); err != nil {
		return nil, err
	}
	a.namespaces = o.namespacesOf(a.api)
	if a.taints, a.watches, err = o.taintsOf(a.api); err != nil {
		return nil, err
	}
	a.watches = append(a.watches, watch{"pods", a.pods.Failing})
	if a.namespaces.Watched() {
		a.watches = append(a.watches, watch{"namespaces", a.namespaces.Failing})
	}
	a.answerer = answer.New(o.node, a.pods, a.namespaces, a.api, a.metrics.answered)
	recorder, flush := a.api.EventRecorder(o.node)
	a.flushEvents = flush
	warner := patrol.NewWarner(recorder, log)
	observer := &observer{metrics: a.metrics, pods: a.pods, warner: warner, log: log}
	a.records = mark.NewIndex(o.store, log, observer.recorded, queue.Add)
	a.marker = mark.New(boot, queue, a.pods, a.records, a.api, observer.attempted)
	a.installation = newInstallation(o.install, o.noInstall, filepath.Join(o.store.Dir, memoryFile),
		func(ctx context.Context) (string, error) { return a.api.RuntimeVersion(ctx, o.node) },
		a.metrics.installed, a.metrics.contested, a.metrics.repairs, log)
	repairer := patrol.NewRepairer(patrol.RepairConfig{
		Mode: o.repair, CacheDir: o.cacheDir, NetNSDir: o.netnsDir, Plugin: filepath.Join(o.install.BinDir, entry.Type),
		Look:  lookBesideUs(),
		Entry: o.install.Entry, Store: o.store, Pods: a.api, Warner: warner, Repairs: a.metrics.podRepairs, Log: log,
	})
	a.checks = checks{repairer}
	a.patrol = patrol.New(patrol.Config{
		Every: o.every, StuckAfter: o.stuckAfter, SweepAfter: o.sweepAfter, Policy: o.policy, Boot: boot, Store: o.store,
		Pods: a.pods, Namespaces: a.namespaces, Reader: a.api, Records: a.records, Marks: a.marker,
		Questions: a.answerer, Installation: a.installation, Repairer: repairer,
		Renewer: patrol.NewRenewer(patrol.RenewConfig{
			Namespaces: o.renew, Plugin: o.install.Source, Repairer: repairer, Warner: warner,
			Renewals: a.metrics.renewals, Log: log,
		}),
		Warner: warner, Metrics: a.metrics.patrol, Log: log,
	})
	a.metrics.showReady(func() bool { return health.Pass(a.ready()) })
	a.metrics.showWatches(a.watches)
	return a, nil
}

// run runs every part until ctx ends or one of them returns an error. It returns that error.
func (a *agent) run(ctx context.Context) error {
	defer a.flushEvents()
	a.log.WithFields(logrus.Fields{
		"version": buildinfo.Version(), "node": a.node, "socket": a.socket, "stateDir": a.store.Dir,
	}).Info("starting")
	socket, err := facts.Listen(a.socket, append(record.Names(), memoryFile, patrol.BypassesFile)...)
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var parts sync.WaitGroup
	part := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil {
				fail(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	web := func(ctx context.Context) {
		a.web.Run(ctx, health.Handler(a.metrics.registry, a.healthy(), a.ready()))
	}
	untaint := func(ctx context.Context) {
		a.untaint(ctx, a.api, a.taints, func() bool { return health.Pass(a.ready()) }, a.log)
	}
	for _, run := range []func(context.Context){
		a.pods.Run, a.namespaces.Run, a.marker.Run, a.patrol.Run, untaint, web,
		func(ctx context.Context) { a.watches.warn(ctx, a.log) },
	} {
		parts.Go(func() { run(ctx) })
	}
	part("installing", a.installation.run)
	part("watching the records", a.records.Run)
	part("serving the socket", func(ctx context.Context) error { return a.serveFacts(ctx, socket) })
	if l := listenInspect(a.socket+inspect.SocketSuffix, a.log); l != nil {
		part("answering the operator's tool", func(ctx context.Context) error { return serveInspect(ctx, l, a) })
	}
	<-ctx.Done()
	parts.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (a *agent) serveFacts(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	a.answerer.Listening()
	a.serving.Store(true)
	defer a.serving.Store(false)
	return facts.Serve(l, a.answerer.Answer)
}

// healthy returns the checks of /healthz: whether a restart might help.
func (a *agent) healthy() []health.Check {
	return []health.Check{{Name: "patrol", Run: func() (bool, string) {
		last := a.patrol.LastRound()
		if last.IsZero() {
			return true, "starting"
		}
		age := time.Since(last)
		return age < 10*a.every+time.Minute, fmt.Sprintf("last round %s ago", age.Round(time.Millisecond))
	}}, {Name: "directories", Run: a.installation.attached}}
}

// ready returns the checks of /readyz: whether new mesh pods of this node get their rules and their mark.
func (a *agent) ready() []health.Check {
	return []health.Check{
		{Name: "HTTP", Run: a.web.Listening},
		{Name: "installed", Run: a.installation.ready},
		{Name: "socket", Run: func() (bool, string) { return a.serving.Load(), a.socket }},
		{Name: "backend", Run: a.backend},
		{Name: "pods", Run: synced(a.pods.Synced, a.pods.Failing)},
		{Name: "namespaces", Run: a.knowsNamespaces},
		{Name: "API server", Run: func() (bool, string) { return true, a.watches.String() }}, // never fails
		{Name: "records", Run: synced(a.records.Ready, nil)},
		{Name: "rules", Run: func() (bool, string) { // never fails
			if older := a.patrol.Older(); len(older) > 0 {
				return true, "written by another release, for " + some(older)
			}
			return true, "of this release"
		}},
		{Name: "no bypass", Run: func() (bool, string) {
			if bypassed := a.patrol.Bypassed(); len(bypassed) > 0 {
				return false, strings.Join(bypassed, ", ") + ": without rules, for the plugin was not run"
			}
			if outside := a.patrol.Outside(); len(outside) > 0 {
				return true, "outside the mesh until they are made again: " + some(outside)
			}
			return true, "no mesh pod is without rules"
		}},
	}
}

// namespacesOf returns a watched cache of namespaces if a decision may depend on a namespace. Otherwise it returns one
// that reads a namespace when it is asked for.
func (o *options) namespacesOf(api *kube.Client) *kube.Namespaces {
	if !o.policy.ReadsNamespaces() {
		return kube.NamespacesOnDemand(api.NamespaceAnnotations)
	}
	return kube.NewNamespaces(api.Namespaces(), api.NamespaceAnnotations)
}

// knowsNamespaces reports whether the namespaces have been read, if decisions depend on them.
func (a *agent) knowsNamespaces() (bool, string) {
	if !a.namespaces.Watched() {
		return true, "not watched: with selection injected no decision depends on them"
	}
	return synced(a.namespaces.Synced, a.namespaces.Failing)()
}

// backend reports whether the plugin has found a usable backend. The plugin stores its answer to STATUS, which only
// runtimes that use CNI 1.1 or later ask for.
func (a *agent) backend() (bool, string) {
	switch why, err := a.store.Problem(); {
	case err != nil:
		return false, err.Error()
	case why != "":
		return false, why
	}
	return true, "the runtime's STATUS has told of no problem"
}

// shownNames is the largest number of pod names in a line of /readyz.
const shownNames = 10

// some joins the first shownNames names, and counts the others.
func some(names []string) string {
	if more := len(names) - shownNames; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shownNames], ", "), more)
	}
	return strings.Join(names, ", ")
}

// synced returns a check that something has been read. The check's detail says why it has not, if failing knows.
func synced(is func() bool, failing func() (time.Time, error)) func() (bool, string) {
	return func() (bool, string) {
		if is() {
			return true, "known"
		}
		if failing != nil {
			if _, err := failing(); err != nil {
				return false, "not read yet: " + err.Error()
			}
		}
		return false, "not read yet"
	}
}
