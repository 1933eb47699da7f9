package uninstall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// EnvUninstall is the environment variable of the agent's flag --uninstall.
const EnvUninstall = "AGENT_UNINSTALL"

// whatStays is printed at the end, because there is no agent left to ask.
const whatStays = "where CRI-O or Multus cannot delete pods without it, the plugin's binary stays, and does nothing " +
	"else: such a node has an Event PluginStays (kubectl get events -n default). It goes with " +
	"`istio-pod-network-install uninstall --purge` on that node when those pods are gone, or with the node; " +
	"docs/uninstalling.md"

// progressEvery is the time between two lines of progress.
const progressEvery = 10 * time.Second

// API is the part of the API server that Cluster needs.
type API interface {
	DaemonSet(ctx context.Context, namespace, name string) (kube.DaemonSet, error)
	PatchDaemonSet(ctx context.Context, namespace, name string, patch []byte) error
	PodsWith(ctx context.Context, namespace string, labels map[string]string) ([]corev1.Pod, error)
}

// Cluster uninstalls the plugin from every node, by the agents' DaemonSet.
type Cluster struct {
	namespace, daemonset string
	timeout              time.Duration
	api                  API
	log                  *logrus.Logger
}

// NewCluster returns a Cluster for the DaemonSet. It waits for its nodes up to the timeout.
func NewCluster(namespace, daemonset string, timeout time.Duration, api API, log *logrus.Logger) *Cluster {
	return &Cluster{namespace, daemonset, timeout, api, log}
}

// Run changes the agents of the DaemonSet into ones that uninstall, and waits for them. The error names the nodes that
// were not done in time, and why.
func (c *Cluster) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	d, err := c.read(ctx)
	if apierrors.IsNotFound(err) {
		c.log.Infof("there is no DaemonSet %s/%s, so no agent keeps the plugin on any node", c.namespace, c.daemonset)
		return nil
	}
	if err == nil {
		err = c.turn(ctx, d)
	}
	if err != nil {
		return fmt.Errorf("DaemonSet %s/%s: %w", c.namespace, c.daemonset, err)
	}
	var logged time.Time
	for {
		d, err := c.read(ctx)
		switch {
		case err == nil && d.Done():
			c.log.Infof("the plugin is out of all %d nodes", d.Status.DesiredNumberScheduled)
			c.log.Info(whatStays)
			return nil
		case ctx.Err() != nil:
			return c.late(d, err)
		case time.Since(logged) >= progressEvery:
			logged = time.Now()
			c.log.Info(c.state(ctx, d, err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// late returns the error that names the nodes that were not done in time.
func (c *Cluster) late(d kube.DaemonSet, err error) error {
	ctx := context.Background() // the context of Run has ended; every request has a timeout of its own
	if fresh, again := c.read(ctx); again == nil {
		d, err = fresh, nil
	}
	return fmt.Errorf("not done within %s: %s. A node that is gone for good has to be deleted, or the hook left out "+
		"(helm uninstall --no-hooks)", c.timeout, c.state(ctx, d, err))
}

func (c *Cluster) read(ctx context.Context) (kube.DaemonSet, error) {
	return c.api.DaemonSet(ctx, c.namespace, c.daemonset)
}

// turn changes the DaemonSet for all nodes at once: a node without an agent refuses mesh pods until the plugin is
// uninstalled.
func (c *Cluster) turn(ctx context.Context, d kube.DaemonSet) error {
	if len(d.Spec.Template.Spec.Containers) == 0 {
		return errors.New("its pods have no container")
	}
	const patch = `{"spec": {"updateStrategy": {"type": "RollingUpdate",
		"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%%"}},
		"template": {"spec": {"containers": [{"name": %q, "env": [{"name": %q, "value": "true"}]}]}}}}`
	body := fmt.Appendf(nil, patch, d.Spec.Template.Spec.Containers[0].Name, EnvUninstall)
	return c.api.PatchDaemonSet(ctx, c.namespace, c.daemonset, body)
}

// maxNamed limits how many nodes a line names.
const maxNamed = 10

// state returns the progress, and which nodes are not done, with the reason.
func (c *Cluster) state(ctx context.Context, d kube.DaemonSet, err error) string {
	if err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("%d of %d nodes are done", min(d.Status.NumberReady, d.Status.UpdatedNumberScheduled),
		d.Status.DesiredNumberScheduled)
	pods, err := c.api.PodsWith(ctx, c.namespace, d.Spec.Selector.MatchLabels)
	if err != nil {
		return text
	}
	var waiting []string
	for _, pod := range pods {
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

// unready returns why a pod of the DaemonSet is not done, or "" if it is.
func unready(pod corev1.Pod) string {
	removes := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == EnvUninstall && e.Value == "true" })
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
