package explain

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/plugin/annotation"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// State is the state of a pod in its cluster.
type State = output.Verdict

// Values of State.
const (
	Well     = output.Well
	NotWell  = output.NotWell
	NotAsked = output.NotAsked
)

// Live is what is known of a pod in its cluster beside the decision.
type Live struct {
	State    State            `json:"state"`
	Findings []output.Finding `json:"findings,omitempty"` // what is not well, or not known
	Notes    []string         `json:"notes,omitempty"`    // what is well but worth knowing
	Node     string           `json:"node,omitempty"`
	Agent    string           `json:"agent,omitempty"` // NAMESPACE/NAME of the agent's pod on the node
	Mark     *Mark            `json:"mark,omitempty"`
	Wait     *Wait            `json:"wait,omitempty"`
	// Record and Rules are the agent's answer; absent if it was not asked.
	Record    *inspect.Record `json:"record,omitempty"`
	Rules     *inspect.Rules  `json:"rules,omitempty"`
	Injection []Webhook       `json:"injection,omitempty"` // of a pod without a sidecar
	Events    []Event         `json:"events,omitempty"`    // the last one last
	// NotLookedAt is what could not be looked at, each with its reason.
	NotLookedAt []string `json:"notLookedAt,omitempty"`

	verdicts   []State      // the state for each finding
	told       *inspect.Pod // the agent's answer
	unasked    string       // how the answer could be had, if there is none
	namespaced bool         // its namespace was read
	assumed    bool         // the operator's settings could not be read: the plugin's defaults are assumed
	over       bool         // the pod does not need its network any more
}

// Mark is the agent's mark on the pod.
type Mark struct {
	Status   string `json:"status"`
	NetNS    string `json:"netns"`
	Reason   string `json:"reason,omitempty"`
	Families string `json:"families,omitempty"`
}

// Event is an Event about the pod.
type Event struct {
	Time    time.Time `json:"time"`
	Type    string    `json:"type"`
	Reason  string    `json:"reason"`
	From    string    `json:"from,omitempty"`
	Count   int32     `json:"count,omitempty"`
	Message string    `json:"message"`
}

// Source is what pods are read from: a cluster.
type Source interface {
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	NamespaceNamed(ctx context.Context, name string) (*corev1.Namespace, error)
	AgentOn(ctx context.Context, namespace, node string) (*corev1.Pod, error)
	DaemonSets(ctx context.Context, namespace string) ([]appsv1.DaemonSet, error)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	EventsOf(ctx context.Context, pod *corev1.Pod) ([]corev1.Event, error)
	MutatingWebhooks(ctx context.Context) ([]admissionv1.MutatingWebhookConfiguration, error)
	Log(ctx context.Context, pod *corev1.Pod, container string, lines int64, limit int) (text []byte, cut bool, err error)
	AskPod(ctx context.Context, agent corev1.Pod, namespace, name string) (inspect.Pod, error)
}

// DefaultOperator returns the plugin's default settings.
func DefaultOperator() Operator {
	o, err := OperatorOf(entry.Default())
	if err != nil {
		panic(err) // the plugin's own entry is valid
	}
	return o
}

// OperatorIn reads the operator's settings from the ConfigMap.
func OperatorIn(config *corev1.ConfigMap) (Operator, error) {
	e, err := entry.Parse([]byte(config.Data[cluster.SettingsKey]))
	if err != nil {
		return Operator{}, fmt.Errorf("ConfigMap %s/%s: %w", config.Namespace, config.Name, err)
	}
	return OperatorOf(e)
}

// asker explains pods of a cluster.
type asker struct {
	from   Source
	agents string // the agents' namespace; "" if it is to be found
	now    time.Time
	// decides says that only the decision is asked for, not the pods' state.
	decides bool

	operator  *Operator           // settings for all pods; nil until they are read
	settings  string              // where they come from
	missing   []string            // about all pods
	nodes     map[string]agent    // by name
	webhooks  *webhooks           // nil until they are read
	spaces    map[string]*space   // by name
	injectors map[string]injector // by ConfigMap
}

// agent is the agent's pod of a node, or why it is not known.
type agent struct {
	pod *corev1.Pod
	err error
}

// webhooks are the cluster's webhooks, or why they are not known.
type webhooks struct {
	all []admissionv1.MutatingWebhookConfiguration
	err error
}

// space is a namespace, or why it is not known.
type space struct {
	*corev1.Namespace
	err error
}

// take makes the settings of a file override the ConfigMap.
func (a *asker) take(s Settings) {
	if s.file != "" {
		a.operator, a.settings = &s.operator, s.file
	}
}

// explain explains pods, NAMESPACE/NAME. unread are the errors of pods that could not be read.
func (a *asker) explain(ctx context.Context, pods []string) (list List, unread []error) {
	list = List{Head: output.HeadOf("ExplanationList"), Items: []Explanation{}}
	for _, full := range pods {
		namespace, name, _ := strings.Cut(full, "/")
		pod, err := a.from.Pod(ctx, namespace, name)
		if err != nil {
			unread = append(unread, fmt.Errorf("reading pod %s%s: %w", full, cluster.Needs("the verb get on pods", err), err))
			list.NotLookedAt = append(list.NotLookedAt, unread[len(unread)-1].Error())
			continue
		}
		list.Items = append(list.Items, a.of(ctx, pod))
	}
	list.Operator = a.settings
	list.NotLookedAt = append(list.NotLookedAt, a.missing...)
	return list, unread
}

// Decide explains only the decision about pods, NAMESPACE/NAME, by pod, namespace and the operator's settings. agents
// is the agents' namespace, "" if it is to be found. unread are the errors of pods that could not be read.
func Decide(
	ctx context.Context, from Source, agents string, settings Settings, pods []string,
) (list List, unread []error) {
	a := asker{from: from, agents: agents, decides: true}
	a.take(settings)
	return a.explain(ctx, pods)
}

// of explains a pod.
func (a *asker) of(ctx context.Context, pod *corev1.Pod) Explanation {
	its := a.agentOf(ctx, pod.Spec.NodeName)
	a.readSettings(ctx, its)
	live := &Live{Node: pod.Spec.NodeName, Mark: markOn(pod), Wait: waitIn(pod), assumed: len(a.missing) > 0}
	live.over = pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded ||
		pod.Status.Phase == corev1.PodFailed
	namespace := a.namespace(ctx, pod.Namespace)
	if live.namespaced = namespace.err == nil; !live.namespaced {
		live.miss("labels and annotations of namespace "+pod.Namespace, "the verb get on namespaces", namespace.err)
		namespace.Namespace = &corev1.Namespace{}
	}
	e := a.operator.Of(pod, namespace.Annotations)
	e.Live = live
	if a.decides {
		return e
	}
	if !live.over && !pod.Spec.HostNetwork {
		live.ask(ctx, a.from, its, pod)
		live.hear(ctx, a.from, pod)
	}
	a.readEvents(ctx, live, pod)
	if uninjected[e.Reason] {
		a.readInjection(ctx, live, pod, namespace)
	}
	e.judge(a.now)
	return e
}

// miss adds what could not be looked at, and the right that is missing for it.
func (l *Live) miss(what, right string, err error) {
	l.NotLookedAt = append(l.NotLookedAt, fmt.Sprintf("%s%s: %v", what, cluster.Needs(right, err), err))
}

// agentOf returns the agent of a node.
func (a *asker) agentOf(ctx context.Context, node string) agent {
	if node == "" {
		return agent{}
	}
	if a.nodes == nil {
		a.nodes = map[string]agent{}
	}
	its, known := a.nodes[node]
	if !known {
		its.pod, its.err = a.from.AgentOn(ctx, a.agents, node)
		a.nodes[node] = its
	}
	return its
}

// readSettings reads the operator's settings once, from the ConfigMap in the agents' namespace.
func (a *asker) readSettings(ctx context.Context, its agent) {
	if a.operator != nil {
		return
	}
	operator := DefaultOperator()
	a.settings = theDefaults
	if namespace := a.agentsNamespace(ctx, its); namespace != "" {
		operator = a.readConfigMap(ctx, namespace)
	}
	a.operator = &operator
}

// agentsNamespace returns the namespace of the release, "" if it is not known.
func (a *asker) agentsNamespace(ctx context.Context, its agent) string {
	if a.agents != "" {
		return a.agents
	}
	if its.pod != nil {
		return its.pod.Namespace
	}
	sets, err := a.from.DaemonSets(ctx, "")
	switch {
	case err != nil:
		a.missing = append(a.missing, fmt.Sprintf("the operator's settings: where the agents are is not known%s: %v",
			cluster.Needs("the verb list on pods or daemonsets in all namespaces, or --agents-namespace", err), err))
	case len(sets) > 0:
		return sets[0].Namespace
	default:
		a.missing = append(a.missing, "the operator's settings: there is no agent of istio-pod-network in this cluster")
	}
	return ""
}

// readConfigMap returns the operator's settings, or the plugin's defaults if they cannot be read.
func (a *asker) readConfigMap(ctx context.Context, namespace string) Operator {
	its, err := a.from.ConfigMap(ctx, namespace, cluster.SettingsMap)
	if err != nil {
		a.missing = append(a.missing, fmt.Sprintf("the operator's settings%s: %v",
			cluster.Needs("the verb get on configmaps in "+namespace, err), err))
		return DefaultOperator()
	}
	operator, err := OperatorIn(its)
	if err != nil {
		a.missing = append(a.missing, fmt.Sprintf("the operator's settings: %v", err))
		return DefaultOperator()
	}
	a.settings = "ConfigMap " + namespace + "/" + cluster.SettingsMap
	return operator
}

// namespace returns a namespace. It reads each namespace once.
func (a *asker) namespace(ctx context.Context, name string) space {
	if a.spaces == nil {
		a.spaces = map[string]*space{}
	}
	if a.spaces[name] == nil {
		its, err := a.from.NamespaceNamed(ctx, name)
		a.spaces[name] = &space{its, err}
	}
	return *a.spaces[name]
}

// markOn returns the pod's mark, nil if it has none.
func markOn(pod *corev1.Pod) *Mark {
	a := pod.Annotations
	m := Mark{a[annotation.Status], a[annotation.NetNS], a[annotation.Reason], a[annotation.Families]}
	if m.Status == "" && m.NetNS == "" {
		return nil
	}
	return &m
}

// readEvents stores the Events about the pod in order.
func (a *asker) readEvents(ctx context.Context, l *Live, pod *corev1.Pod) {
	events, err := a.from.EventsOf(ctx, pod)
	if err != nil {
		l.miss("Events", "the verb list on events in "+pod.Namespace, err)
		return
	}
	for _, e := range events {
		at := e.LastTimestamp.Time
		if at.IsZero() {
			at = e.EventTime.Time
		}
		if at.IsZero() {
			at = e.CreationTimestamp.Time
		}
		from := e.ReportingController
		if from == "" {
			from = e.Source.Component
		}
		l.Events = append(l.Events, Event{at.UTC(), e.Type, e.Reason, from, e.Count, strings.TrimSpace(e.Message)})
	}
	slices.SortStableFunc(l.Events, func(a, b Event) int { return a.Time.Compare(b.Time) })
}
