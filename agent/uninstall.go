package agent

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/agent/health"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/agent/uninstall"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/internal/program/flags"
	"github.com/sirupsen/logrus"
)

// uninstallNode runs an agent with --uninstall, until ctx ends.
func uninstallNode(ctx context.Context, o options, log *logrus.Logger) {
	log.WithFields(logrus.Fields{
		"version": buildinfo.Version(), "node": o.node, "stateDir": o.store.Dir,
	}).Info("taking the plugin out of this node")
	api, err := kube.Connect(o.kube)
	if err != nil {
		log.WithError(err).Warn("the plugin is taken out without the API server")
	}
	version := func(ctx context.Context) (string, error) {
		if api == nil {
			return "", err
		}
		return api.RuntimeVersion(ctx, o.node)
	}
	stays := func(string) {}
	if api != nil {
		tell, flush := api.NodeEvents(o.node)
		defer flush()
		stays = func(why string) { tell(eventPluginStays, why) }
	}
	o.install.StateDir, o.install.CacheDir = o.store.Dir, o.cacheDir
	// From now on others make pods' networks. An agent that is installed later must not count these as its own.
	if err := os.Remove(filepath.Join(o.store.Dir, memoryFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.WithError(err).Warn("forgetting the installation")
	}
	node := uninstall.NewNode(o.install, o.every, version, stays, log)
	web := health.NewServer(o.listen, log)
	alive := []health.Check{{Name: "uninstalling", Run: func() (bool, string) { return true, "running" }}}
	ready := []health.Check{{Name: "HTTP", Run: web.Listening}, {Name: "uninstalled", Run: node.Ready}}
	var parts sync.WaitGroup
	parts.Go(func() { node.Run(ctx) })
	parts.Go(func() { web.Run(ctx, health.Handler(newMetrics().registry, alive, ready)) })
	if api != nil { // an agent that was never ready has left the startup taint, and nobody else removes it
		taints, all, err := o.taintsOf(api)
		if err != nil {
			log.Warn(err)
		}
		parts.Go(func() { o.untaint(ctx, api, taints, func() bool { return health.Pass(ready) }, log) })
		parts.Go(func() { all.warn(ctx, log) })
	}
	parts.Wait()
}

// eventPluginStays is the reason of the Event on a node from which the plugin's binary cannot be removed yet.
const eventPluginStays = "PluginStays"

const uninstallAllHelp = `takes the plugin out of every node of the cluster

It changes the agents' DaemonSet so that each agent is replaced by one that runs with --uninstall, and waits until
there is one on every node and says that the plugin is out. The chart runs it before it is uninstalled. The account
needs the verbs get and patch on that one DaemonSet, and list on pods in its namespace.

Flags; each is also an environment variable, --daemonset as AGENT_DAEMONSET:

{flags}

Exit status: 0 the plugin is out of every node, or there is no such DaemonSet; 1 failed, or not done within --timeout
(the last line names the nodes); 2 wrong usage.
`

// uninstallAll runs the command uninstall-all and returns the exit status.
func uninstallAll(ctx context.Context, p program.Program, args []string) int {
	var namespace, daemonset string
	var timeout time.Duration
	reach := kube.Config{QPS: 10, Burst: 20}
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.StringVar(&namespace, "namespace", "", "`namespace` of the DaemonSet; required")
	f.StringVar(&daemonset, "daemonset", "istio-pod-network-agent", "`name` of the DaemonSet")
	f.DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait for the nodes")
	f.StringVar(&reach.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the API server; without it, the "+
		"pod's service account")
	p.Help = flags.Help(p.Help, f)
	if status, ended := flags.Parse(p, f, envPrefix, args); ended {
		return status
	}
	switch {
	case namespace == "":
		return p.Misused(invalid.Text("--namespace", namespace, "", "the namespace of the agents' DaemonSet"))
	case daemonset == "":
		return p.Misused(invalid.Text("--daemonset", daemonset, "", "the name of the agents' DaemonSet"))
	case timeout <= 0:
		return p.Misused(invalid.Text("--timeout", timeout.String(), "", "a duration of more than 0, such as 10m"))
	}
	log := newLogger(logrus.InfoLevel, "text", p.Stderr)
	api, err := kube.Connect(reach)
	if err == nil {
		err = uninstall.NewCluster(namespace, daemonset, timeout, api, log).Run(ctx)
	}
	return ended(log, err)
}
