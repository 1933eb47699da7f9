package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/agent/uninstall"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/internal/envflag"
	"github.com/sirupsen/logrus"
)

// uninstallNode is what an agent with --uninstall does, until the context ends.
func uninstallNode(ctx context.Context, o options, log *logrus.Logger) error {
	log.WithFields(logrus.Fields{"version": buildinfo.Version(), "node": o.node, "stateDir": o.store.Dir}).Info("taking the plugin out of this node")
	web, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	version := func(ctx context.Context) (string, error) {
		api, err := kube.Connect(o.kube)
		if err != nil {
			return "", err
		}
		return api.RuntimeVersion(ctx, o.node)
	}
	node := uninstall.NewNode(o.install, o.store, o.every, version, log)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); node.Run(ctx) }()
	alive := []check{{"uninstalling", func() (bool, string) { return true, "running" }}}
	err = serveHTTP(ctx, web, newMetrics().registry, alive, []check{{"uninstalled", node.Ready}})
	stop()
	<-ended
	return err
}

const uninstallAllHelp = `istio-pod-network-agent uninstall-all: takes the plugin out of every node of the cluster

It changes the agents' DaemonSet so that each agent is replaced by one that runs with --uninstall, and waits until there is
one on every node and says that the plugin is out. The chart runs it before it is uninstalled. The account needs the verbs
get and patch on that one DaemonSet, and list on pods in its namespace.

Flags; each is also an environment variable, --daemonset as AGENT_DAEMONSET:
`

const uninstallAllExits = `
Exit status: 0 the plugin is out of every node, or there is no such DaemonSet; 1 failed, or not done within --timeout (the
last line names the nodes); 2 wrong usage.
`

// uninstallAll is the command. It returns the exit status.
func (p program) uninstallAll(ctx context.Context, args []string) int {
	var namespace, daemonset string
	var timeout time.Duration
	reach := kube.Config{QPS: 10, Burst: 20}
	f := flag.NewFlagSet("istio-pod-network-agent uninstall-all", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&namespace, "namespace", "", "`namespace` of the DaemonSet; required")
	f.StringVar(&daemonset, "daemonset", "istio-pod-network-agent", "`name` of the DaemonSet")
	f.DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait for the nodes")
	f.StringVar(&reach.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the API server; without it, the pod's service account")
	f.Usage = func() {
		fmt.Fprint(f.Output(), uninstallAllHelp)
		f.PrintDefaults()
		fmt.Fprint(f.Output(), uninstallAllExits)
	}
	err := envflag.Set(f, "AGENT_", p.getenv)
	if err == nil {
		err = f.Parse(args)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		f.SetOutput(p.stdout)
		f.Usage()
		return 0
	case err != nil:
	case f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case namespace == "" || daemonset == "":
		err = errors.New("--namespace and --daemonset must say which DaemonSet is the agents'")
	case timeout <= 0:
		err = wrong("timeout", timeout.String(), "a duration of more than 0, such as 10m")
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "istio-pod-network-agent uninstall-all: %v; see --help\n", err)
		return exitUsage
	}
	log := newLogger(logrus.InfoLevel, "text", p.stderr)
	api, err := kube.Connect(reach)
	if err == nil {
		err = uninstall.NewCluster(namespace, daemonset, timeout, api, log).Run(ctx)
	}
	if err != nil {
		log.Error(err)
		return exitFailed
	}
	return 0
}
