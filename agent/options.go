package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/agent/patrol"
	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/internal/program/flags"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/sirupsen/logrus"
)

const help = `the part of istio-pod-network-controller that runs once per node

It keeps the CNI plugin istio-pod-network installed and chained, answers the plugin's questions about pods on a unix
socket, and marks the pods that the plugin has dealt with:

  pod-network-controller.istio.io/status: initialized      the packet rules are in place
  pod-network-controller.istio.io/status: not-required     left untouched
  pod-network-controller.istio.io/netns:  <boot-id>/<inode>/<cookie> of the network namespace that this is about
  pod-network-controller.istio.io/reason: why the pod is in the mesh, or is not

Where the socket and the plugin's records are, and which pods are redirected, stands in --network-config, the plugin's
own entry: agent and plugin cannot disagree. SIGTERM ends the agent and leaves everything in place. With --uninstall it
takes the plugin out of its node instead, and keeps it out until it is ended; the command uninstall-all does that on all
nodes of a cluster (uninstall-all --help). The command inspect prints what the agent knows of its node (inspect --help),
and probe what an installation would find on a node without one (probe --help).
docs/agent.md lists the metrics, Events and log lines.

Flags; each is also an environment variable, --node-name as AGENT_NODE_NAME:

{flags}

HTTP on --listen: /healthz (the agent works), /readyz (installed, socket serving, caches synced, no pod bypasses the
mesh; one line each; with --uninstall: uninstalled), /metrics (Prometheus).

Exit status: 0 ended by SIGTERM or SIGINT; 1 failed; 2 wrong usage.
`

// options are the values of the command line and of the plugin's entry.
type options struct {
	node       string
	kube       kube.Config
	listen     string
	logFormat  string
	logLevel   logrus.Level
	every      time.Duration // between two rounds of the patrol
	stuckAfter time.Duration
	sweepAfter time.Duration

	startupTaint string
	uninstall    bool
	repair       patrol.Mode
	renew        redirect.Globs // namespaces in which rules are renewed
	cacheDir     string         // libcni's cache
	netnsDir     string         // the runtime's network namespaces

	noInstall bool
	install   install.Config
	file      string // path of the plugin's entry

	socket string
	store  record.Store
	policy redirect.Policy
}

func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.StringVar(&o.node, "node-name", "", "`name` of this node's object, from the downward API; required")
	f.StringVar(&o.kube.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the API server; without it, the "+
		"pod's service account")
	f.StringVar(&o.listen, "listen", ":15088", "`address` of /healthz, /readyz and /metrics")
	f.StringVar(&o.logFormat, "log-format", "text", "`format` of the log on standard error: text or json")
	o.logLevel = logrus.InfoLevel
	const levels = "debug, info, warning or error"
	flags.Func(f, "log-level", "`level`: "+levels+" (default info)", levels, func(text string) bool {
		return o.logLevel.UnmarshalText([]byte(text)) == nil
	})
	f.Float64Var(&o.kube.QPS, "api-qps", 100, "requests per second to the API server, in the long run")
	f.IntVar(&o.kube.Burst, "api-burst", 200, "requests to the API server at once")
	f.DurationVar(&o.every, "patrol", 5*time.Second, "how often to look for pods that bypass the mesh or hang, and for "+
		"stale records")
	f.DurationVar(&o.stuckAfter, "stuck-after", inspect.StuckAfter,
		"how long an init wait may go on in a marked pod before an Event reports it")
	f.DurationVar(&o.sweepAfter, "sweep-after", time.Minute,
		"how long the record of a pod that is gone waits for the runtime's DEL")
	f.BoolVar(&o.noInstall, "no-install", false, "leave the node's CNI directories to somebody else, such as "+
		"istio-pod-network-install watch")
	f.StringVar(&o.startupTaint, "startup-taint", "", "`key` of the taint that this node was born with, to be removed "+
		"whenever it is there and the agent is ready")
	f.StringVar((*string)(&o.repair), "repair", string(patrol.Off),
		"what to do about mesh `pods` whose network was made without the plugin: apply (run the plugin on it; needs "+
			"CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_DAC_READ_SEARCH, to trace packets CAP_SETUID and CAP_SETGID, and the "+
			"directories below), delete (if a controller makes "+
			"them again) or off (report them)")
	flags.Func(f, "renew-rules", "with --repair=apply: names or shell patterns of `namespaces`, separated by commas, in "+
		"whose running pods rules that another release has written are replaced by those of this one",
		"names or shell patterns of namespaces, such as shop,team-*", o.setRenew)
	f.StringVar(&o.cacheDir, "cni-cache-dir", "/var/lib/cni", "the `directory` in which the runtime's libcni keeps "+
		"results, with the annotations that pods had when their networks were made, and, as Multus does in multus, "+
		"what pods are deleted by; it is only read")
	f.StringVar(&o.netnsDir, "netns-dir", "/var/run/netns", "with --repair=apply: the `directory` in which the runtime "+
		"keeps network namespaces")
	f.BoolVar(&o.uninstall, "uninstall", false, "take the plugin out of this node, and be ready when it is out")
	o.install.Flags(f)
	f.Lookup("source").Usage = "the plugin's `binary` to install (default istio-pod-network beside this program)"
	f.StringVar(&o.file, "network-config", "", "`file` with the plugin's entry, a JSON object (default "+
		entry.DefaultText+")")
	return f
}

// setRenew parses --renew-rules and reports whether it is valid.
func (o *options) setRenew(text string) (ok bool) {
	var err error
	patterns := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	o.renew, err = redirect.ParseGlobs("", patterns)
	return err == nil
}

// complete validates the flags' values, reads the plugin's entry and asks the plugin whether it accepts it.
func (o *options) complete(ctx context.Context) error {
	for _, step := range []func() error{o.check, o.readEntry, func() error { return o.askPlugin(ctx) }} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) check() error {
	_, port, err := net.SplitHostPort(o.listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return invalid.Text("--listen", o.listen, "", "an address such as :15088 or 127.0.0.1:15088")
	}
	const validNode = "the name of this node's object, which the downward API gives as spec.nodeName"
	switch {
	case o.node == "":
		return invalid.Text("--node-name", o.node, "", validNode)
	case o.logFormat != "text" && o.logFormat != "json":
		return invalid.Text("--log-format", o.logFormat, "", "text or json")
	case o.kube.QPS <= 0:
		return invalid.Text("--api-qps", fmt.Sprint(o.kube.QPS), "", "more than 0")
	case o.kube.Burst < 1:
		return invalid.Text("--api-burst", fmt.Sprint(o.kube.Burst), "", "1 or more")
	case !slices.Contains(patrol.Modes, o.repair):
		return invalid.Text("--repair", string(o.repair), "", "apply, delete or off")
	case len(o.renew) > 0 && o.repair != patrol.Apply:
		return invalid.Text("--renew-rules", strings.Join(o.renew, ","), "--repair is "+string(o.repair),
			"none, or --repair=apply beside it")
	case !filepath.IsAbs(o.cacheDir):
		return invalid.Text("--cni-cache-dir", o.cacheDir, "", "an absolute path")
	case !filepath.IsAbs(o.netnsDir):
		return invalid.Text("--netns-dir", o.netnsDir, "", "an absolute path")
	case o.uninstall && o.noInstall:
		return errors.New("--uninstall and --no-install exclude each other")
	}
	durations := map[string]time.Duration{
		"--patrol": o.every, "--stuck-after": o.stuckAfter, "--sweep-after": o.sweepAfter,
	}
	for key, d := range durations {
		if d <= 0 {
			return invalid.Text(key, d.String(), "", "a duration of more than 0, such as 5s")
		}
	}
	return nil
}

// besideUs returns the path of the plugin in the directory of this program, "" if there is none.
func besideUs() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	path := filepath.Join(filepath.Dir(self), entry.Type)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}

// lookProgram traces packets and reads rules in a pod's network namespace. It is in the directory of this program.
const lookProgram = "istio-pod-network-look"

// lookBesideUs returns its path.
func lookBesideUs() string {
	self, _ := os.Executable()
	return filepath.Join(filepath.Dir(self), lookProgram)
}

// readEntry reads the plugin's entry.
func (o *options) readEntry() (err error) {
	o.install.Entry = entry.Default()
	if o.file != "" {
		text, err := os.ReadFile(o.file)
		if err != nil {
			return fmt.Errorf("--network-config: %w", err)
		}
		// --uninstall accepts an invalid entry: removing the plugin needs no settings. If stateDir is invalid, it uses the
		// default directory, because the plugin never ran with the invalid one. --no-install accepts settings that only the
		// plugin rejects: whoever installs it is responsible for them.
		o.install.Entry, err = entry.Parse(text)
		tolerated := o.uninstall && !o.install.Entry.IsZero() || o.noInstall && entry.IsPluginOnly(err)
		if err != nil && !tolerated {
			return fmt.Errorf("--network-config: %w", err)
		}
		if err := o.install.Entry.CheckKeys(); err != nil && !o.uninstall && !o.noInstall {
			return fmt.Errorf("--network-config: %w", err)
		}
	}
	o.socket, o.store.Dir, o.policy = o.install.Entry.AgentSocket, o.install.Entry.StateDir, o.install.Entry.Policy
	if o.socket == "" {
		return fmt.Errorf("--network-config: %w", invalid.Text("agentSocket", "", "", "an absolute path"))
	}
	return o.install.Check()
}

// askPlugin finds the plugin to install, beside this program unless --source names another, and has it validate the
// entry.
func (o *options) askPlugin(ctx context.Context) error {
	if o.install.Source == "" {
		o.install.Source = besideUs()
	}
	if len(o.renew) > 0 && o.install.Source == "" {
		return invalid.Text("--renew-rules", strings.Join(o.renew, ","), "there is no plugin beside this program",
			"none, or --source beside it")
	}
	if o.noInstall || o.uninstall {
		return nil
	}
	err := install.Validate(ctx, o.install)
	// The installation asks again after a late answer, and the agent is not ready until it has one.
	if err != nil && !errors.Is(err, install.ErrLate) && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("--network-config: %w", err)
	}
	return nil
}
