package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/sirupsen/logrus"
)

// agent is all parts together.
type agent struct {
	options
	log        *logrus.Logger
	metrics    *metrics
	api        *apiServer
	pods       *podCache
	namespaces *namespaceCache
	records    *recordIndex
	marker     *marker
	install    *installation
	patrol     *patrol
	serving    atomic.Bool // the socket
	uncounted  sync.Map    // of records that were there before the agent, by container ID and interface
}

// newAgent puts the parts together; nothing runs yet.
func newAgent(o options, log *logrus.Logger) (*agent, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("reading the boot ID: %w", err)
	}
	boot := bootID(strings.TrimSpace(string(id)))
	a := &agent{options: o, log: log, metrics: newMetrics(), marker: newMarker(boot, log)}
	a.metrics.countRequests()
	if a.api, err = connect(o); err != nil {
		return nil, err
	}
	if a.pods, err = newPodCache(a.api.podsOf(o.node), a.marker.enqueue); err != nil {
		return nil, err
	}
	if a.namespaces, err = newNamespaceCache(a.api); err != nil {
		return nil, err
	}
	a.records = &recordIndex{store: o.store, log: log, files: map[string]recordFile{}, seen: a.seenRecord, changed: a.marker.enqueue}
	a.marker.pods, a.marker.records, a.marker.patch, a.marker.read, a.marker.done = a.pods, a.records, a.api.mark, a.api.pod, a.attempted
	a.install = newInstallation(o, log, a.metrics, func(ctx context.Context) (string, error) { return a.api.runtimeVersion(ctx, o.node) })
	a.patrol = &patrol{
		options: o, boot: boot, pods: a.pods, namespaces: a.namespaces, records: a.records, marker: a.marker,
		install: a.install, metrics: a.metrics, read: a.api.pod, log: log,
		repairer: newRepairer(o, a.metrics, log, a.api.deletePod),
	}
	return a, nil
}

// run runs every part until the context ends or one of them fails for good.
func (a *agent) run(ctx context.Context) error {
	a.log.WithFields(logrus.Fields{"version": buildVersion(), "node": a.node, "socket": a.socket, "stateDir": a.store.Dir}).Info("starting")
	socket, err := facts.Listen(a.socket)
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	web, err := net.Listen("tcp", a.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	warner, flush := newWarner(a.api, a.node, a.log)
	defer flush()
	a.patrol.warner = warner
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
	always := func(run func(context.Context)) func(context.Context) error {
		return func(ctx context.Context) error { run(ctx); return nil }
	}
	part("installing", a.install.run)
	part("watching the records", a.records.run)
	part("watching pods", always(a.pods.run))
	part("watching namespaces", always(a.namespaces.run))
	part("marking pods", always(a.marker.run))
	part("looking after pods", always(a.patrol.run))
	part("serving the socket", func(ctx context.Context) error { return a.serveFacts(ctx, socket) })
	if a.startupTaint != "" {
		part("removing the startup taint", always(untainter{
			key: a.startupTaint, every: a.every, ready: func() bool { return hold(a.ready()) }, log: a.log,
			remove: func(ctx context.Context, key string) (bool, error) { return a.api.removeTaint(ctx, a.node, key) },
		}.run))
	}
	part("serving HTTP", func(ctx context.Context) error {
		return serveHTTP(ctx, web, a.metrics, a.healthy(), a.ready())
	})
	<-ctx.Done()
	parts.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (a *agent) serveFacts(ctx context.Context, l net.Listener) error {
	answerer := answerer{
		node: a.node, pods: a.pods, namespaces: a.namespaces, read: a.api.pod, slots: make(chan struct{}, liveReads),
		answered: func(source string) { a.metrics.questions.WithLabelValues(source).Inc() },
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	a.serving.Store(true)
	defer a.serving.Store(false)
	return facts.Serve(l, answerer.answer)
}

// seenRecord is called for every new record. Those that were there when the agent started have been counted by the one
// before it, unless it did not come to mark them.
func (a *agent) seenRecord(r record.Record, fresh bool) {
	if fresh {
		a.metrics.added(r)
		return
	}
	a.uncounted.Store(r.ContainerID+" "+r.IfName, true)
}

// attempted is called after every attempt to mark a pod.
func (a *agent) attempted(r record.Record, result string, err error) {
	a.metrics.marks.WithLabelValues(result).Inc()
	log := a.log.WithFields(logrus.Fields{
		"pod": r.Namespace + "/" + r.Name, "sandbox": r.ContainerID, "decision": r.Decision, "reason": r.Reason, "result": result,
		"ms": float64(r.DurationMicroseconds) / 1000,
	})
	if r.Backend != "" {
		log = log.WithField("backend", r.Backend)
	}
	uncounted := false
	if result != markFailure {
		_, uncounted = a.uncounted.LoadAndDelete(r.ContainerID + " " + r.IfName)
	}
	pod := a.pods.withID(podID(r))
	if pod != nil {
		a.patrol.warner.aboutRecord(pod, r)
	}
	switch result {
	case marked:
		if uncounted {
			a.metrics.added(r)
		}
		a.metrics.markLatency.Observe(time.Since(r.Time).Seconds())
		log.Info("pod marked")
	case markFailure:
		log.WithError(err).Warn("marking the pod; it is tried again")
		if pod != nil && isRefusal(err) {
			a.patrol.warner.warn(pod, eventRefused, "The API server refuses the annotations that mark the pod as initialized: %v", err)
		}
	default:
		log.Debug("nothing written")
	}
}

// healthy is what /healthz looks at: whether a restart might help.
func (a *agent) healthy() []condition {
	return []condition{{"patrol", func() (bool, string) {
		age := time.Since(time.Unix(0, a.patrol.last.Load()))
		if a.patrol.last.Load() == 0 {
			return true, "starting"
		}
		return age < 10*a.every+time.Minute, fmt.Sprintf("last round %s ago", age.Round(time.Millisecond))
	}}}
}

// ready is what /readyz looks at: whether new mesh pods of this node get their rules and their mark.
func (a *agent) ready() []condition {
	return []condition{
		{"installed", a.install.ready},
		{"socket", func() (bool, string) { return a.serving.Load(), a.socket }},
		{"pods", synced(a.pods.synced)},
		{"namespaces", synced(a.namespaces.synced)},
		{"records", synced(a.records.ready)},
		{"no bypass", func() (bool, string) {
			bypassed := a.patrol.bypassed.Load()
			if bypassed == nil || len(*bypassed) == 0 {
				return true, "no mesh pod is without rules"
			}
			return false, strings.Join(*bypassed, ", ") + ": the runtime did not run the plugin"
		}},
	}
}

func synced(is func() bool) func() (bool, string) {
	return func() (bool, string) {
		if is() {
			return true, "known"
		}
		return false, "not read yet"
	}
}
