// Package cluster is how the operator's tool reaches a cluster: by the flags that kubectl has, too, with the rights of
// its user, and the agents by running their program's inspect in their containers.
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

// ErrNoAgent says that there is nobody to ask, and nothing by which an agent could be missed.
var ErrNoAgent = errors.New("no agent of istio-pod-network is in this cluster; install the chart, or name the " +
	"namespace of the agents with -n")

// Requests at once, and in the long run per second: as many as kubectl makes.
const (
	burst = 300
	qps   = 50
)

// unnamed is the address that client-go takes where nothing names one.
const unnamed = "http://localhost:8080"

// Flags are those by which a user chooses a cluster.
type Flags struct {
	config *genericclioptions.ConfigFlags
	set    *pflag.FlagSet // of them alone
}

// NewFlags gives a set of flags those that kubectl has, but for the namespace, which is the caller's.
func NewFlags(set *pflag.FlagSet) Flags {
	c := genericclioptions.NewConfigFlags(false)
	// Nothing is discovered, so nothing is cached; and what a laptop's user rarely says is what a kubeconfig is for.
	c.Namespace, c.CacheDir, c.CertFile, c.KeyFile, c.TLSServerName = nil, nil, nil, nil, nil
	c.ImpersonateUID, c.ImpersonateUserExtra, c.DisableCompression = nil, nil, nil
	of := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.AddFlags(of)
	set.AddFlagSet(of)
	return Flags{c, of}
}

// CheckUnused is the error of a command line that has one of them although because says that no cluster is asked, with
// its exit status.
func (f Flags) CheckUnused(because string) (err error) {
	f.set.VisitAll(func(flag *pflag.Flag) { err = cmp.Or(err, unused(flag, because)) })
	return err
}

// CheckUnused is the error of a command line that has a flag which, as because says, has no effect beside the others,
// with its exit status.
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

// AgentsNamespace is that of the agents, as the flag --namespace of a command names it; "" for whichever it is.
func AgentsNamespace(set *pflag.FlagSet) string {
	if flag := set.Lookup("namespace"); flag != nil && flag.Changed {
		return flag.Value.String()
	}
	return ""
}

// Connect reads the kubeconfig; it sends nothing yet. Its error has its exit status.
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
	if err := cmp.Or(errs[:]...); err != nil { // of one configuration they all say the same
		return nil, f.unread(err)
	}
	return c, nil
}

// unread is the error of a configuration that cannot be used: of the command line if it names the file, or if there
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

// namesNone reports whether neither a kubeconfig nor a flag names a cluster: client-go then takes an address of its
// own, where nobody answers.
func (f Flags) namesNone(config *rest.Config) bool {
	raw, err := f.config.ToRawKubeConfigLoader().RawConfig()
	return err == nil && len(raw.Clusters) == 0 && *f.config.APIServer == "" && config.Host == unnamed
}

// Ask connects, and has ask ask the cluster until its user breaks it off.
func (f Flags) Ask(ctx context.Context, ask func(context.Context, *Cluster) error) error {
	c, err := f.Connect()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	return ask(ctx, c)
}

// Namespace returns the namespace of what names none itself, as the kubeconfig's context has it.
func (f Flags) Namespace() (string, error) {
	namespace, _, err := f.config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", f.unread(err)
	}
	return namespace, nil
}

// Known are the names in the kubeconfig, sorted.
func (f Flags) Known() (contexts, clusters, users []string, err error) {
	raw, err := f.config.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return nil, nil, nil, err
	}
	return slices.Sorted(maps.Keys(raw.Contexts)), slices.Sorted(maps.Keys(raw.Clusters)),
		slices.Sorted(maps.Keys(raw.AuthInfos)), nil
}

// Cluster is one that is asked with its user's rights. The errors of its methods are the API server's.
type Cluster struct {
	config    *rest.Config
	Core      typedcore.CoreV1Interface
	Apps      typedapps.AppsV1Interface
	Admission typedadmission.AdmissionregistrationV1Interface
	Discovery discovery.DiscoveryInterfaceWithContext
	Metadata  metadata.Interface // of objects whose types are not known here
	clocks    clocks
}

// Host is the address of the API server, as the kubeconfig or a flag has it.
func (c *Cluster) Host() string { return c.config.Host }

// Nodes returns all nodes. It needs the verb list on nodes.
func (c *Cluster) Nodes(ctx context.Context) ([]corev1.Node, error) {
	list, err := c.Core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// Agents returns the agents' pods of a namespace, "" for all. It needs the verb list on pods.
func (c *Cluster) Agents(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	list, err := c.Core.Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: OfAgents})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// DaemonSets returns the agents' DaemonSets of a namespace, "" for all. It needs the verb list on daemonsets.
func (c *Cluster) DaemonSets(ctx context.Context, namespace string) ([]appsv1.DaemonSet, error) {
	list, err := c.Apps.DaemonSets(namespace).List(ctx, metav1.ListOptions{LabelSelector: OfAgents})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}
