package agent

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/internal/envflag"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

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

// rollout is one run of uninstall-all.
type rollout struct {
	options
	namespace, daemonset string
	timeout              time.Duration
	progress             time.Duration // how often to say how far it is
	api                  *apiServer
	log                  *logrus.Logger
}

// uninstallAll is the command. It returns the exit status.
func (p program) uninstallAll(ctx context.Context, args []string) int {
	r := rollout{options: options{logLevel: logrus.InfoLevel, logFormat: "text", qps: 10, burst: 20}, progress: 10 * time.Second}
	f := flag.NewFlagSet("istio-pod-network-agent uninstall-all", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&r.namespace, "namespace", "", "`namespace` of the DaemonSet; required")
	f.StringVar(&r.daemonset, "daemonset", "istio-pod-network-agent", "`name` of the DaemonSet")
	f.DurationVar(&r.timeout, "timeout", 10*time.Minute, "how long to wait for the nodes")
	f.StringVar(&r.kubeconfig, "kubeconfig", "", "`file` that says how to reach the API server; without it, the pod's service account")
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
	case r.namespace == "" || r.daemonset == "":
		err = errors.New("--namespace and --daemonset must say which DaemonSet is the agents'")
	case r.timeout <= 0:
		err = wrong("timeout", r.timeout.String(), "a duration of more than 0, such as 10m")
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "istio-pod-network-agent uninstall-all: %v; see --help\n", err)
		return exitUsage
	}
	r.log = newLogger(r.options, p.stderr)
	if r.api, err = connect(r.options); err == nil {
		err = r.run(ctx)
	}
	if err != nil {
		r.log.Error(err)
		return exitFailed
	}
	return 0
}

// uninstallEnv is the environment variable of the flag --uninstall.
const uninstallEnv = "AGENT_UNINSTALL"

// daemonSet is what is looked at of one. The types of all of apps/v1 would make the program half as big again.
type daemonSet struct {
	Metadata struct{ Generation int64 }
	Spec     struct {
		Selector struct{ MatchLabels map[string]string }
		Template corev1.PodTemplateSpec
	}
	Status struct {
		ObservedGeneration                                          int64
		DesiredNumberScheduled, UpdatedNumberScheduled, NumberReady int
	}
}

// done reports whether every node has what the DaemonSet says now, and says so.
func (d daemonSet) done() bool {
	s := d.Status
	return s.ObservedGeneration >= d.Metadata.Generation && s.UpdatedNumberScheduled == s.DesiredNumberScheduled && s.NumberReady == s.DesiredNumberScheduled
}

// run turns the agents into removers and waits for them.
func (r rollout) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	d, err := r.read(ctx)
	if apierrors.IsNotFound(err) {
		r.log.Infof("there is no DaemonSet %s/%s, so no agent keeps the plugin on any node", r.namespace, r.daemonset)
		return nil
	}
	if err == nil {
		err = r.turn(ctx, d)
	}
	if err != nil {
		return fmt.Errorf("DaemonSet %s/%s: %w", r.namespace, r.daemonset, err)
	}
	said := time.Time{}
	for {
		d, err := r.read(ctx)
		switch {
		case err == nil && d.done():
			r.log.Infof("the plugin is out of all %d nodes", d.Status.DesiredNumberScheduled)
			return nil
		case ctx.Err() != nil:
			return r.late(d, err)
		case time.Since(said) >= r.progress:
			said = time.Now()
			r.log.Info(r.state(ctx, d, err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// late says which nodes are not done when the time is over.
func (r rollout) late(d daemonSet, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if fresh, again := r.read(ctx); again == nil {
		d, err = fresh, nil
	}
	return fmt.Errorf("not done within %s: %s. A node that is gone for good has to be deleted, or the hook left out (helm uninstall --no-hooks)",
		r.timeout, r.state(ctx, d, err))
}

func (r rollout) path() string {
	return fmt.Sprintf("/apis/apps/v1/namespaces/%s/daemonsets/%s", r.namespace, r.daemonset)
}

func (r rollout) read(ctx context.Context) (d daemonSet, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	data, err := r.api.core.Get().AbsPath(r.path()).SetHeader("Accept", "application/json").Do(ctx).Raw()
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	return d, err
}

// turn changes the DaemonSet: all at once, because a node without an agent refuses mesh pods until the plugin is out.
func (r rollout) turn(ctx context.Context, d daemonSet) error {
	if len(d.Spec.Template.Spec.Containers) == 0 {
		return errors.New("its pods have no container")
	}
	const patch = `{"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%%"}},
		"template": {"spec": {"containers": [{"name": %q, "env": [{"name": %q, "value": "true"}]}]}}}}`
	body := fmt.Appendf(nil, patch, d.Spec.Template.Spec.Containers[0].Name, uninstallEnv)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return r.api.core.Patch(types.StrategicMergePatchType).AbsPath(r.path()).SetHeader("Accept", "application/json").Body(body).Do(ctx).Error()
}

// maxNamed bounds how many nodes are named in a line.
const maxNamed = 10

// state says how far it is, and which nodes are not done and why.
func (r rollout) state(ctx context.Context, d daemonSet, err error) string {
	if err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("%d of %d nodes are done", min(d.Status.NumberReady, d.Status.UpdatedNumberScheduled), d.Status.DesiredNumberScheduled)
	var pods corev1.PodList
	err = r.api.core.Get().Namespace(r.namespace).Resource(podsResource.Resource).
		Param("labelSelector", labels.SelectorFromSet(d.Spec.Selector.MatchLabels).String()).Do(ctx).Into(&pods)
	if err != nil {
		return text
	}
	var waiting []string
	for _, pod := range pods.Items {
		if why := unready(pod); why != "" {
			waiting = append(waiting, fmt.Sprintf("%s (pod %s: %s)", pod.Spec.NodeName, pod.Name, why))
		}
	}
	slices.Sort(waiting)
	if more := len(waiting) - maxNamed; more > 0 {
		waiting = append(waiting[:maxNamed], fmt.Sprintf("and %d more", more))
	}
	if len(waiting) > 0 {
		text += "; not yet: " + strings.Join(waiting, ", ")
	}
	return text
}

// unready says why a pod of the DaemonSet is not one that has done its work, "" if it is.
func unready(pod corev1.Pod) string {
	removes := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == uninstallEnv && e.Value == "true" })
	})
	if !removes {
		return "still the agent"
	}
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			return w.Reason
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return ""
		}
	}
	return "not ready"
}
