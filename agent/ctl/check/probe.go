package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/excerpt"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Namespace is the temporary namespace of --probe-nodes.
const Namespace = "istio-pod-network-probe"

// space describes that namespace.
var space = temporary.Kind{Name: Namespace, Level: "privileged", Key: "probe", Cleanup: "check --cleanup"}

// Names in the pods.
const (
	probeName    = "probe" // account and container
	probeProgram = "/istio-pod-network-agent"
	pullName     = "plugin" // the container with the plugin's image
	pullProgram  = "/istio-pod-network-wait"
	hostMount    = "/host"
)

// capabilities are the capabilities of the pods: to make a network namespace and write rules there, to read directories
// of other users, and to change the root to the node's file system.
var capabilities = []corev1.Capability{"DAC_READ_SEARCH", "NET_ADMIN", "SYS_ADMIN", "SYS_CHROOT"}

// Limits for one pod: the time of a request, the bytes of a log, and the bytes of a message that are shown.
const (
	askTimeout  = 10 * time.Second
	mostOfLog   = 1 << 20
	longestText = 300
)

// logs reads the log of a pod in the temporary namespace.
type logs func(ctx context.Context, pod string) ([]byte, error)

func logsOf(core typedcore.CoreV1Interface) logs {
	return func(ctx context.Context, pod string) ([]byte, error) {
		most := int64(mostOfLog)
		return core.Pods(Namespace).GetLogs(pod, &corev1.PodLogOptions{Container: probeName, LimitBytes: &most}).DoRaw(ctx)
	}
}

// prober probes nodes with temporary pods.
type prober struct {
	core typedcore.CoreV1Interface
	charted
	runtimes map[string]string // names of the container runtimes, by node
	agents   string            // namespace of the pull secrets
	parallel int
	timeout  time.Duration // for each node
	pace     temporary.Pace
	logs     logs
	progress *temporary.Progress
	tool     string
}

// probed is the result for one node.
type probed struct {
	node  string
	found inspect.Probed
	err   error  // nothing is known of the node
	next  string // what to do about err
	image bool   // its image cannot be pulled
	ended bool   // the program has failed
	// unpulled is why the plugin's image cannot be pulled, nil if it can.
	unpulled error
}

// plan says what would be created.
func (p prober) plan(nodes []string) string {
	names := make([]string, len(capabilities))
	for i, c := range capabilities {
		names[i] = string(c)
	}
	var t output.Text
	t.Line(output.Plain, "--probe-nodes makes, and removes in the end:")
	t.Item("-", "namespace %s, of Pod Security %s, with a service account that has no rights", Namespace, space.Level)
	t.Item("-", "a pod on each of %s (%s), %d at once, of the image %s", counted(len(nodes)), some(nodes), p.parallel,
		p.image)
	t.Line(output.Plain, "Each pod runs %s probe once, which changes nothing:", probeProgram[1:])
	t.Item("-", "as root, with the capabilities %s, and without a token", strings.Join(names, ", "))
	t.Item("-", "with / of the node mounted at %s, read-only; it looks at %s and %s", hostMount,
		strings.Join(p.confDirs(), ", "), strings.Join(p.binDirs(), ", "))
	t.Item("-", "it also reads the configurations of containerd and CRI-O")
	t.Item("-", "in the node's network, to know its IPv6; rules are tried in a network namespace of its own")
	t.Line(output.Plain, "A second container runs %s --version, without any privilege, of the image %s: each node has to "+
		"be able to pull that, too.", pullProgram[1:], p.plugin)
	return t.String()
}

// confDirs returns the directories of configurations to look at. The first one is the agents'.
func (p prober) confDirs() []string {
	switch p.platform.mode {
	case "chain":
		return p.platform.confDirs
	case "aux":
		return []string{p.platform.confDir, p.platform.auxDir}
	}
	return []string{p.platform.confDir}
}

// binDirs returns the directories of plugins to look at. The first one is the agents'.
func (p prober) binDirs() []string {
	if p.platform.mode == "chain" {
		return p.platform.binDirs
	}
	return []string{p.platform.binDir}
}

// pod returns the pod for a node.
func (p prober) pod(name, node string) *corev1.Pod {
	args := []string{"probe", "--root=" + hostMount}
	for _, dir := range p.confDirs() {
		args = append(args, "--conf-dir="+dir)
	}
	for _, dir := range p.binDirs() {
		args = append(args, "--bin-dir="+dir)
	}
	for _, dir := range p.values.CNI.RuntimeBinDirs {
		args = append(args, "--runtime-bin-dir="+dir)
	}
	if p.values.CNI.Primary != "" {
		args = append(args, "--primary="+p.values.CNI.Primary)
	}
	no, yes, root, grace := false, true, int64(0), int64(1)
	longest := int64((p.timeout + time.Minute).Seconds())
	readOnly := corev1.RecursiveReadOnlyIfPossible
	security := &corev1.SecurityContext{
		RunAsUser: &root, ReadOnlyRootFilesystem: &yes, AllowPrivilegeEscalation: &yes,
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: capabilities},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if p.platform.seLinuxType != "" {
		security.SELinuxOptions = &corev1.SELinuxOptions{Type: p.platform.seLinuxType}
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: Namespace, Labels: space.Labels()},
		Spec: corev1.PodSpec{
			ServiceAccountName: probeName, AutomountServiceAccountToken: &no, HostNetwork: true,
			RestartPolicy: corev1.RestartPolicyNever, ActiveDeadlineSeconds: &longest, TerminationGracePeriodSeconds: &grace,
			ImagePullSecrets: p.values.PullSecrets,
			Containers: []corev1.Container{
				{
					Name: probeName, Image: p.image, ImagePullPolicy: p.values.Image.PullPolicy,
					Command: []string{probeProgram}, Args: args, SecurityContext: security,
					VolumeMounts: []corev1.VolumeMount{{Name: "host", MountPath: hostMount, ReadOnly: true,
						RecursiveReadOnly: &readOnly}},
				},
				{
					Name: pullName, Image: p.plugin, ImagePullPolicy: p.values.Image.PullPolicy,
					Command: []string{pullProgram}, Args: []string{"--version"},
					SecurityContext: &corev1.SecurityContext{
						RunAsNonRoot: &yes, ReadOnlyRootFilesystem: &yes, AllowPrivilegeEscalation: &no,
						Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
						SeccompProfile: security.SeccompProfile,
					},
				},
			},
			Volumes: []corev1.Volume{{Name: "host",
				VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}},
		},
	}
	if p.platform.distribution == openShift {
		pod.Annotations = map[string]string{"openshift.io/required-scc": "privileged"}
	}
	temporary.On(node, &pod.Spec)
	return pod
}

// all probes nodes in a temporary namespace, which is gone when it returns. missing says what could not be created for
// the pods.
func (p prober) all(ctx context.Context, nodes []string) (found []probed, missing []string, err error) {
	found = make([]probed, len(nodes))
	s := temporary.NewSpace(space, p.core, p.pace, p.tool)
	err = s.In(ctx, p.timeout, p.progress, func(ctx context.Context) (err error) {
		if missing, err = s.Furnish(ctx, p.core, probeName, p.agents, p.values.PullSecrets); err != nil {
			return err
		}
		temporary.Each(nodes, p.parallel, func(i int, node string) {
			p.progress.Step(node, "its pod starts")
			found[i] = p.probe(ctx, fmt.Sprint("probe-", i), node)
			what := "probed"
			if found[i].err != nil {
				what = "not probed"
			}
			p.progress.Done(node, what)
		})
		return nil
	})
	return found, missing, err
}

// probe probes a node with a pod.
func (p prober) probe(ctx context.Context, name, node string) (its probed) {
	its.node = node
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, temporary.Late(p.timeout))
	defer cancel()
	pods := p.core.Pods(Namespace)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		_ = pods.Delete(ctx, name, metav1.DeleteOptions{}) // otherwise it is removed with the namespace
	}()
	pod, err := pods.Create(ctx, p.pod(name, node), metav1.CreateOptions{})
	if err != nil {
		its.err = fmt.Errorf("its pod could not be made%s: %w", cluster.Needs("the verb create on pods", err), err)
		its.next = "see what refuses it"
		return its
	}
	for pod.Status.Phase != corev1.PodSucceeded {
		if its.troubled(pod); its.err != nil {
			if its.ended {
				its.err = fmt.Errorf("%w: %s", its.err, p.log(ctx, name))
			}
			return its
		}
		if its.unpulled != nil && looked(pod) {
			break
		}
		if !cluster.Pause(ctx, p.pace.Poll) {
			late := fmt.Errorf("%w: %s", context.Cause(ctx), p.lastEvent(ctx, pod))
			if looked(pod) {
				its.unpulled = late
				break
			}
			its.err, its.next = late, "kubectl describe node "+node+" says whether it starts pods"
			return its
		}
		now, err := pods.Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil:
			pod = now
		case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
			its.err = err
			return its
		}
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	text, err := p.logs(ctx, name)
	if err == nil {
		err = json.Unmarshal(text, &its.found)
	} else {
		err = fmt.Errorf("reading its log%s: %w", cluster.Needs("the verb get on pods/log", err), err)
	}
	its.err = err
	return its
}

// troubled stores why the pod cannot succeed.
func (its *probed) troubled(pod *corev1.Pod) {
	for _, c := range pod.Status.ContainerStatuses {
		switch w, t := c.State.Waiting, c.State.Terminated; {
		case w != nil && cluster.LacksImage(w.Reason):
			lacking := fmt.Errorf("%s: %s", w.Reason, excerpt.Head(w.Message, longestText))
			if c.Name == pullName {
				its.unpulled = lacking
				continue
			}
			its.image, its.err = true, lacking
			return
		case t == nil || t.ExitCode == 0:
		case c.Name == pullName:
			its.unpulled = fmt.Errorf("its program has ended with %d: %s", t.ExitCode, excerpt.Head(t.Message, longestText))
		default:
			its.ended, its.err = true, fmt.Errorf("its pod has ended with %d", t.ExitCode)
			its.next = "report it, with this line"
			return
		}
	}
	if its.unpulled != nil {
		return
	}
	if pod.Status.Phase == corev1.PodFailed {
		text := strings.Join(strings.Fields(pod.Status.Reason+" "+pod.Status.Message), " ")
		its.err = errors.New("its pod has failed: " + text)
		its.next = "see what the node lacks: kubectl describe node " + its.node
	}
}

// looked reports whether the probe has succeeded, even if the plugin's image cannot be pulled.
func looked(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.Name == probeName && c.State.Terminated != nil && c.State.Terminated.ExitCode == 0
	})
}

// lastEvent returns the last message of kubelet or scheduler about a pod.
func (p prober) lastEvent(ctx context.Context, pod *corev1.Pod) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	list, err := p.core.Events(Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(pod.UID)})
	if err != nil {
		return fmt.Sprintf("its Events could not be read%s: %v", cluster.Needs("the verb list on events", err), err)
	}
	said := "it is " + string(pod.Status.Phase)
	for _, e := range list.Items {
		if e.InvolvedObject.UID == pod.UID && e.Type == corev1.EventTypeWarning {
			said = e.Reason + ": " + excerpt.Head(e.Message, longestText)
		}
	}
	return said
}

// log returns the last line of a pod's log.
func (p prober) log(ctx context.Context, name string) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	text, err := p.logs(ctx, name)
	if err != nil {
		return fmt.Sprintf("its log could not be read%s: %v", cluster.Needs("the verb get on pods/log", err), err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return excerpt.Head(lines[len(lines)-1], longestText)
}

// errUnprobed says that some node could not be probed.
var errUnprobed = outcome.Unasked(errors.New("not every node could be probed"))
