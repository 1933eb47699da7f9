package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/health"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/agent/patrol"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/internal/program/flags"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
)

// Paths of the HTTP server on the socket. They return the types Node, Pod, KernelRules, Trace and Files of package
// inspect.
const (
	nodePath  = "/node"
	podPath   = "/pod"
	rulesPath = "/rules"
	tracePath = "/trace"
	filesPath = "/files"
)

// inspectTimeout limits a whole connection.
const inspectTimeout = 10 * time.Second

// inspectable answers the requests on the socket. The agent does that; tests have another.
type inspectable interface {
	inspectedNode() inspect.Node
	inspectedPod(ctx context.Context, namespace, name string) inspect.Pod
	inspectedRules(ctx context.Context, namespace, name string) inspect.KernelRules
	inspectedTrace(ctx context.Context, namespace, name string, p patrol.Packet) inspect.Trace
	inspectedFiles() inspect.Files
}

// serveInspect answers requests on the socket until ctx ends.
func serveInspect(ctx context.Context, l net.Listener, by inspectable) error {
	mux := http.NewServeMux()
	answer := func(path string, with func(*http.Request) any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(with(r))
		})
	}
	answer(nodePath, func(*http.Request) any { return by.inspectedNode() })
	answer(podPath, func(r *http.Request) any {
		return by.inspectedPod(r.Context(), r.FormValue("namespace"), r.FormValue("name"))
	})
	answer(rulesPath, func(r *http.Request) any {
		return by.inspectedRules(r.Context(), r.FormValue("namespace"), r.FormValue("name"))
	})
	answer(tracePath, func(r *http.Request) any {
		return by.inspectedTrace(r.Context(), r.FormValue("namespace"), r.FormValue("name"),
			patrol.Packet{From: r.FormValue("from"), Proto: r.FormValue("proto"), To: r.FormValue("to")})
	})
	answer(filesPath, func(*http.Request) any { return by.inspectedFiles() })
	server := &http.Server{Handler: mux, ReadTimeout: inspectTimeout, WriteTimeout: inspectTimeout}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// inspectedNode returns what the agent knows of its node.
func (a *agent) inspectedNode() inspect.Node {
	now := time.Now()
	n := inspect.Node{Node: a.node, Agent: buildinfo.Version(), Questions: inspect.Questions, Time: now.UTC()}
	n.Pods = a.podsOf(a.pods.All(), now)
	n.Unchecked = a.checks.unchecked(n.Pods.Backends)
	n.Plugin, n.Installation = a.installation.inspected()
	n.Ready, n.Checks = checked(a.ready())
	n.Pods.Bypassed, n.Pods.Outside, n.Pods.Older = listed(a.patrol.Bypassed()), listed(a.patrol.Outside()),
		listed(a.patrol.Older())
	return n
}

// listed returns a copy that is never nil, because nil would be null in JSON.
func listed(names []string) []string { return append([]string{}, names...) }

func checked(checks []health.Check) (ready bool, all []inspect.Check) {
	ready = true
	for _, c := range checks {
		ok, detail := c.Run()
		ready = ready && ok
		all = append(all, inspect.Check{Name: c.Name, OK: ok, Detail: detail})
	}
	return ready, all
}

// podsOf counts the pods that are not over, by their records.
func (a *agent) podsOf(pods []*corev1.Pod, now time.Time) inspect.Pods {
	p := inspect.Pods{Waiting: []string{}, WaitingLong: []string{}}
	backends := map[string]bool{}
	for _, pod := range pods {
		if kube.IsOver(pod) {
			continue
		}
		name := pod.Namespace + "/" + pod.Name
		if podfacts.IsHeld(pod) {
			p.Waiting = append(p.Waiting, name)
		}
		if kube.WaitsLong(pod, now, a.stuckAfter) {
			p.WaitingLong = append(p.WaitingLong, name)
		}
		switch r, found := mark.Current(a.boot, a.records.Of(kube.IDs(pod)...)); {
		case !found:
		case r.Decision == record.Redirect:
			p.Redirected++
			backends[r.Backend] = true
		default:
			p.Left++
		}
	}
	slices.Sort(p.Waiting)
	slices.Sort(p.WaitingLong)
	p.Backends = listed(slices.Sorted(maps.Keys(backends)))
	return p
}

// inspected returns what the last pass found, with the last repair. Without a pass it says only who installs.
func (i *installation) inspected() (p inspect.Plugin, s inspect.Installation) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.off || !i.passed {
		return p, inspect.Installation{Managed: !i.off}
	}
	binary := i.last.Binary
	p = inspect.Plugin{Path: binary.Path, SHA256: binary.SHA256}
	if binary.Current && binary.Want != "" {
		p.Version = buildinfo.Version() // agent and plugin come from one build
	}
	s = inspect.Installation{
		Managed: true, Mode: string(i.last.Mode), Chained: string(i.last.Chained), Into: i.last.Active,
		Plugins: i.last.Plugins,
	}
	if !i.repaired.Time.IsZero() {
		last := i.repaired
		s.LastRepair = &last
	}
	return p, s
}

const inspectHelp = `prints what the agent that runs on this node knows of it, as JSON

It asks the agent on a unix socket that only root can use, beside the plugin's. istio-pod-networkctl runs it in the
agents' containers; docs/ctl.md says what it makes of it. The keys are those of package agent/inspect.

  inspect node                  versions, installation, readiness, and the node's pods by what became of them
  inspect pod NAMESPACE/NAME    the record of a pod, and, with --repair=apply, whether its rules are there: by CHECK of
                                the installed plugin
  inspect rules NAMESPACE/NAME  the packet rules in the pod's network, whoever has written them, without the values that
                                they compare with; with --repair=apply
  inspect trace NAMESPACE/NAME SENDER PROTOCOL ADDRESS:PORT
                                sends one packet in the pod's network, which nobody receives, and says which rules the
                                kernel has it take; with --repair=apply. SENDER is uid:N:GROUP or outside, PROTOCOL is
                                tcp or udp
  inspect files                 what lies in the directories of plugins, configurations and records, with the texts of
                                the latter two; credentials are blanked

Flags; each is also an environment variable, --network-config as AGENT_NETWORK_CONFIG:

{flags}

Exit status: 0 printed; 1 the agent does not answer; 2 wrong usage.
`

// mountedConfig is the path at which the chart mounts the plugin's entry.
const mountedConfig = "/etc/istio-pod-network/network.json"

// inspectCommand runs the command inspect and returns the exit status.
func inspectCommand(ctx context.Context, p program.Program, args []string) int {
	f := flag.NewFlagSet("", flag.ContinueOnError)
	file := f.String("network-config", "", "`file` with the plugin's entry, which says where the socket is (default "+
		mountedConfig+" if it is there)")
	p.Help = flags.Help(p.Help, f)
	if p.Answer(args) {
		return program.ExitDone
	}
	path, rest, err := inspectedPath(args)
	if err != nil {
		return p.Misused(err)
	}
	if status, ended := flags.Parse(p, f, envPrefix, rest); ended {
		return status
	}
	socket, err := inspectSocket(*file, mountedConfig)
	if err != nil {
		return p.Misused(err)
	}
	if err := askAgent(ctx, socket, path, p.Stdout); err != nil {
		fmt.Fprintf(p.Stderr, "%s: asking the agent on socket %q: %v\n", p.Name, socket, err)
		return program.ExitFailed
	}
	return program.ExitDone
}

// ofPods maps words that need a pod's name to paths.
var ofPods = map[string]string{"pod": podPath, "rules": rulesPath, "trace": tracePath}

// inspectedPath returns the path for the arguments, with its query, and the arguments after them.
func inspectedPath(args []string) (path string, rest []string, err error) {
	const valid = "node, files, pod or rules NAMESPACE/NAME, or trace NAMESPACE/NAME SENDER PROTOCOL ADDRESS:PORT"
	switch {
	case len(args) == 0:
		return "", nil, errors.New("nothing is to be inspected; valid: " + valid)
	case args[0] == "node":
		return nodePath, args[1:], nil
	case args[0] == "files":
		return filesPath, args[1:], nil
	case ofPods[args[0]] == "":
		return "", nil, program.Unexpected(args[0], valid)
	case len(args) == 1:
		return "", nil, errors.New("no pod is named; valid: " + args[0] + " NAMESPACE/NAME")
	}
	namespace, name, _ := strings.Cut(args[1], "/")
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return "", nil, invalid.Text("pod", args[1], "", "NAMESPACE/NAME")
	}
	its := url.Values{"namespace": {namespace}, "name": {name}}
	if args[0] != "trace" {
		return ofPods[args[0]] + "?" + its.Encode(), args[2:], nil
	}
	const of = 5 // number of words
	if len(args) < of {
		return "", nil, errors.New("the packet is not told; valid: trace NAMESPACE/NAME SENDER PROTOCOL ADDRESS:PORT")
	}
	its["from"], its["proto"], its["to"] = args[2:3], args[3:4], args[4:of]
	return tracePath + "?" + its.Encode(), args[of:], nil
}

// inspectSocket returns the path of the inspect socket. It takes the plugin's socket from the entry in file. Without
// file it reads the mounted entry, and without that it uses the default entry. The entry may have settings that only
// the plugin rejects.
func inspectSocket(file, mounted string) (string, error) {
	text, err := os.ReadFile(cmp.Or(file, mounted))
	if file == "" && errors.Is(err, fs.ErrNotExist) {
		return entry.Default().AgentSocket + inspect.SocketSuffix, nil
	}
	if err != nil {
		return "", fmt.Errorf("--network-config: %w", err)
	}
	e, err := entry.Parse(text)
	if err != nil && !entry.IsPluginOnly(err) {
		return "", fmt.Errorf("--network-config: %w", err)
	}
	return e.AgentSocket + inspect.SocketSuffix, nil
}

// askAgent copies the answer for the path to the writer.
func askAgent(ctx context.Context, socket, path string, to io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return errors.Unwrap(err) // without the URL, which has no meaning on this socket
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	_, err = io.Copy(to, response.Body)
	return err
}

// listenInspect opens the socket. If it cannot, it logs that and returns nil, because only the operator's tool needs
// it.
func listenInspect(path string, log *logrus.Logger) net.Listener {
	l, err := facts.Listen(path)
	if err != nil {
		log.WithError(err).Warn("the operator's tool cannot ask this agent")
		return nil
	}
	return l
}
