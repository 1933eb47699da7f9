// Package cluster connects the operator's tool to a cluster: with kubectl's flags and the rights of the tool's user. It
// asks the agents with exec, by running their program's inspect in their containers.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/signal"
	"slices"
	"syscall"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/discovery"
	typedadmission "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	typedapps "k8s.io/client-go/kubernetes/typed/apps/v1"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ErrNoAgent says that there is no agent to ask, and nothing that shows whether there should be one.
var ErrNoAgent = errors.New("no agent of istio-pod-network is in this cluster; install the chart, or name the " +
	"namespace of the agents with -n")

// Requests at once, and requests per second in the long run, as in kubectl.
const (
	burst = 300
	qps   = 50
)

// unnamed is the address that client-go uses if nothing names one.
const unnamed = "http://localhost:8080"

// Flags are the flags by which a user chooses a cluster.
type Flags struct {
	config *genericclioptions.ConfigFlags
	set    *pflag.FlagSet // these flags alone
}

// NewFlags adds kubectl's flags to a set, except the namespace, which the caller adds.
func NewFlags(set *pflag.FlagSet) Flags {
	c := genericclioptions.NewConfigFlags(false)
	// Nothing is discovered, so no cache is needed. Users of a laptop set the other values in a kubeconfig.
	c.Namespace, c.CacheDir, c.CertFile, c.KeyFile, c.TLSServerName = nil, nil, nil, nil, nil
	c.ImpersonateUID, c.ImpersonateUserExtra, c.DisableCompression = nil, nil, nil
	of := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.AddFlags(of)
	set.AddFlagSet(of)
	return Flags{c, of}
}

// CheckUnused returns an error, with an exit status, if the command line has one of these flags although no cluster is
// asked. because says why.
func (f Flags) CheckUnused(because string) (err error) {
	f.set.VisitAll(func(flag *pflag.Flag) { err = cmp.Or(err, unused(flag, because)) })
	return err
}

// CheckUnused returns an error, with an exit status, if the command line has one of the named flags. because says why
// they have no effect.
func CheckUnused(set *pflag.FlagSet, because string, names ...string) (err error) {
	for _, name := range names {
		err = cmp.Or(err, unused(set.Lookup(name), because))
	}
	return err
}

func unused(flag *pflag.Flag, because string) error {
	if flag == nil || !flag.Changed {
		return nil
	}
	return outcome.Misusef("--%s has no effect: %s", flag.Name, because)
}

// AgentsNamespace returns the agents' namespace if the user has set --namespace, otherwise "" for all namespaces.
func AgentsNamespace(set *pflag.FlagSet) string {
	if flag := set.Lookup("namespace"); flag != nil && flag.Changed {
		return flag.Value.String()
	}
	return ""
}

// Connect reads the kubeconfig. It sends no request. Its error has an exit status.
func (f Flags) Connect() (*Cluster, error) {
	config, err := f.config.ToRESTConfig()
	if err != nil {
		return nil, f.unread(err)
	}
	if f.namesNone(config) {
		return nil, outcome.Unasked(errors.New("no kubeconfig names a cluster: set KUBECONFIG, --kubeconfig or --server"))
	}
	config.UserAgent = "istio-pod-networkctl/" + buildinfo.Version()
	config.QPS, config.Burst = qps, burst
	c := &Cluster{config: config}
	config.Wrap(c.clocks.wrap)
	var errs [5]error
	c.Core, errs[0] = typedcore.NewForConfig(config)
	c.Apps, errs[1] = typedapps.NewForConfig(config)
	c.Admission, errs[2] = typedadmission.NewForConfig(config)
	c.Discovery, errs[3] = discovery.NewDiscoveryClientForConfig(config)
	c.Metadata, errs[4] = metadata.NewForConfig(config)
	if err := cmp.Or(errs[:]...); err != nil { // all have the same configuration, and so the same error
		return nil, f.unread(err)
	}
	return c, nil
}

// unread returns the error of an invalid configuration. It is misuse if the command line names the file, or if there
// would be no error without its flags.
func (f Flags) unread(err error) error {
	if _, wrong := clientcmd.ParseTimeout(*f.config.Timeout); wrong != nil {
		return outcome.Misusef("--request-timeout: invalid value %q; valid: 0, or a time such as 30s", *f.config.Timeout)
	}
	err = fmt.Errorf("reading how to reach the cluster: %w", err)
	if *f.config.KubeConfig != "" {
		return outcome.Misuse(err)
	}
	without, other := genericclioptions.NewConfigFlags(false).ToRESTConfig()
	if other == nil {
		_, other = typedcore.NewForConfig(without)
	}
	if other == nil {
		return outcome.Misuse(err)
	}
	return outcome.Unasked(err)
}

// namesNone reports whether neither a kubeconfig nor a flag names a cluster. client-go then uses a default address,
// where nothing answers.
func (f Flags) namesNone(config *rest.Config) bool {
	raw, err := f.config.ToRawKubeConfigLoader().RawConfig()
	return err == nil && len(raw.Clusters) == 0 && *f.config.APIServer == "" && config.Host == unnamed
}

// Ask connects and calls ask with the cluster. A signal of the user ends ask's context.
func (f Flags) Ask(ctx context.Context, ask func(context.Context, *Cluster) error) error {
	c, err := f.Connect()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	return ask(ctx, c)
}

// Namespace returns the namespace in the kubeconfig's context, for pods that are named without one.
func (f Flags) Namespace() (string, error) {
	namespace, _, err := f.config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", f.unread(err)
	}
	return namespace, nil
}

// Known returns the names in the kubeconfig, sorted.
func (f Flags) Known() (contexts, clusters, users []string, err error) {
	raw, err := f.config.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return nil, nil, nil, err
	}
	return slices.Sorted(maps.Keys(raw.Contexts)), slices.Sorted(maps.Keys(raw.Clusters)),
		slices.Sorted(maps.Keys(raw.AuthInfos)), nil
}

// Cluster is a cluster that is asked with the user's rights. Its methods return the API server's errors.
type Cluster struct {
	config    *rest.Config
	Core      typedcore.CoreV1Interface
	Apps      typedapps.AppsV1Interface
	Admission typedadmission.AdmissionregistrationV1Interface
	Discovery discovery.DiscoveryInterfaceWithContext
	Metadata  metadata.Interface // of objects without a type in this program
	clocks    clocks
}

// Host returns the address of the API server from the kubeconfig or a flag.
func (c *Cluster) Host() string { return c.config.Host }

// Nodes returns all nodes. It needs the verb list on nodes.
func (c *Cluster) Nodes(ctx context.Context) ([]corev1.Node, error) {
	list, err := c.Core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// Agents returns the agents' pods in a namespace, "" for all. It needs the verb list on pods.
func (c *Cluster) Agents(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	list, err := c.Core.Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: OfAgents})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// DaemonSets returns the agents' DaemonSets in a namespace, "" for all. It needs the verb list on daemonsets.
func (c *Cluster) DaemonSets(ctx context.Context, namespace string) ([]appsv1.DaemonSet, error) {
	list, err := c.Apps.DaemonSets(namespace).List(ctx, metav1.ListOptions{LabelSelector: OfAgents})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}
