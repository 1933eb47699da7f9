package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/files"
	"github.com/istio-pod-network/controller/plugin/redirect"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	account = "mesh" // namespace of the agents' service account
	// agentsHost is the address by which only the agents reach the API server, so that their bytes can be counted.
	agentsHost = "127.0.0.2"
	makers     = 16 // requests at the same time that set up the cluster
	tokenLife  = 24 * time.Hour
)

// auditPolicy logs one line for each request of a service account, without bodies: writing these costs the API server
// time.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, Panic]
rules:
- {level: None, userGroups: ["system:masters"]}
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
- {level: None}
`

// cluster is an API server with nodes, namespaces and pods, and the agents of the nodes.
type cluster struct {
	options
	dir      string // of the API server
	server   *apiserver.Server
	etcd     etcd
	client   *kubernetes.Clientset // with all rights
	fleet    fleet
	pods     []*slot
	observer *observer
	audit    audit
	pace     pace
	restarts int // number of restarts of the API server
}

// options are the options for all sizes.
type options struct {
	perNode     int // pods
	meshed      int // mesh pods among them
	namespaces  int // for each node
	each        int // agents in one process
	churn       int // pods that are replaced with and without agents, to compare
	rate        int // pods in a second
	idle        time.Duration
	selection   string // in the plugin's entry
	apiPriority bool   // the agents have their own priority level (the chart's apiPriority.enabled)
}

// watchesNamespaces reports whether the agents watch namespaces, because decisions depend on them.
func (o options) watchesNamespaces() bool { return o.selection == string(redirect.SelectAnnotated) }

// slotIsMesh reports whether the pods of the slot with that number are mesh pods: the first ones of each node are.
func (o options) slotIsMesh(number int) bool { return number%o.perNode < o.meshed }

// newCluster starts the API server and creates nodes and namespaces. There are no pods yet, and no agent runs.
func newCluster(dir string, nodes int, o options) (*cluster, error) {
	policy := filepath.Join(dir, "scale.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	c := &cluster{options: o, dir: dir, audit: audit{path: filepath.Join(dir, "audit.log")}, pace: pace{rate: o.rate}}
	c.server = &apiserver.Server{Bin: isolated.BinDir(), Dir: dir, Host: agentsHost, Flags: []string{
		apiserver.WithoutControllers, "--bind-address=0.0.0.0", "--audit-policy-file=" + policy,
		"--audit-log-maxsize=10000", // MiB; larger than any log, because the log is read from an offset
	}}
	c.etcd = etcd(c.server.EtcdURL())
	if err := c.server.Start(); err != nil {
		return nil, err
	}
	if err := c.setUp(nodes); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func (c *cluster) stop() {
	c.fleet.stop()
	if c.observer != nil {
		c.observer.stop()
	}
	c.server.Stop()
	_ = os.RemoveAll(nodesDir)
}

// nodesDir has the directories of all nodes. Its path is short, for the sockets, and it is on a tmpfs.
const nodesDir = "/run/scale"

func (c *cluster) setUp(nodes int) (err error) {
	config := c.server.Admin()
	config.Host, config.ContentType = "https://127.0.0.1:6443", runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	ctx := context.Background()
	if err := makeNamespace(ctx, c.client, account); err != nil {
		return err
	}
	if err := c.server.Authorize(ctx, filepath.Join(build.Root(), "agent", "rbac.yaml"), account,
		filepath.Join(c.dir, "kubeconfig")); err != nil {
		return err
	}
	if c.apiPriority {
		if err := c.applyAPIPriority(ctx); err != nil {
			return fmt.Errorf("the chart's API priority: %w", err)
		}
	}
	if err := os.MkdirAll(nodesDir, 0o755); err != nil {
		return err
	}
	plugin, err := os.Open(filepath.Join(isolated.BinDir(), "istio-pod-network"))
	if err != nil {
		return err
	}
	defer plugin.Close()
	installed := filepath.Join(nodesDir, "istio-pod-network")
	if err := files.Replace(installed, installed+".new", plugin, nil); err != nil {
		return err
	}
	if err := os.Chmod(installed, 0o755); err != nil {
		return err
	}
	c.fleet = fleet{each: c.each, log: filepath.Join(c.dir, "agents.log"), nodes: make([]node, nodes)}
	if err := atOnce(nodes, func(i int) error { return c.makeNode(ctx, i) }); err != nil {
		return err
	}
	if err := atOnce(c.namespaces*nodes, func(i int) error {
		return makeNamespace(ctx, c.client, namespaceName(i))
	}); err != nil {
		return err
	}
	c.observer, err = observe(c.client)
	if err != nil {
		return err
	}
	for n := range nodes {
		for range c.perNode {
			c.pods = append(c.pods, &slot{number: len(c.pods), node: c.fleet.nodes[n], mesh: c.slotIsMesh(len(c.pods)),
				namespace: namespaceName(rand.IntN(c.namespaces * nodes))})
		}
	}
	progress("%d nodes and %d namespaces made", nodes, c.namespaces*nodes)
	return nil
}

// makeNode creates the node's object and directories, and credentials for its agent, because every pod has its own
// token. The certificate's text differs, too: client-go shares connections between equal configurations.
func (c *cluster) makeNode(ctx context.Context, i int) (err error) {
	n, err := newNode(nodesDir, i, c.selection)
	if err != nil {
		return err
	}
	c.fleet.nodes[i] = n
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
	if object, err = c.client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{}); err != nil {
		return err
	}
	object.Status.NodeInfo.ContainerRuntimeVersion = "containerd://2.1.4"
	if _, err := c.client.CoreV1().Nodes().UpdateStatus(ctx, object, metav1.UpdateOptions{}); err != nil {
		return err
	}
	lifetime := int64(tokenLife / time.Second)
	token, err := c.client.CoreV1().ServiceAccounts(account).CreateToken(ctx, "istio-pod-network-agent",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &lifetime}},
		metav1.CreateOptions{})
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(c.server.CA())
	if err != nil {
		return err
	}
	ca := filepath.Join(n.dir, "ca.crt")
	if err := os.WriteFile(ca, append([]byte("# of "+n.name+"\n"), authority...), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.dir, "kubeconfig"), fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
`, c.server.URL(), ca, token.Status.Token), 0o600)
}

func namespaceName(number int) string { return fmt.Sprintf("team-%05d", number) }

// makeNamespace creates a typical namespace: a few labels, and an annotation of another program.
func makeNamespace(ctx context.Context, client *kubernetes.Clientset, name string) error {
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name,
		Labels:      map[string]string{"istio-injection": "enabled", "example.com/stage": "production"},
		Annotations: map[string]string{"example.com/owner": name + "@example.com"},
	}}, metav1.CreateOptions{})
	return err
}

// annotate changes an annotation of every namespace that nobody reads.
func (c *cluster) annotate(value string) error {
	return atOnce(c.namespaces*len(c.fleet.nodes), func(i int) error {
		_, err := c.client.CoreV1().Namespaces().Patch(context.Background(), namespaceName(i), types.MergePatchType,
			fmt.Appendf(nil, `{"metadata": {"annotations": {"example.com/contact": %q}}}`, value), metav1.PatchOptions{})
		return err
	})
}

// atOnce calls do for all numbers below count, several at the same time, until one fails.
func atOnce(count int, do func(i int) error) error {
	var all sync.WaitGroup
	numbers, failed := make(chan int), make(chan error, makers)
	for range makers {
		all.Go(func() {
			for i := range numbers {
				if err := do(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < count && err == nil; i++ {
		select {
		case numbers <- i:
		case err = <-failed:
		}
	}
	close(numbers)
	all.Wait()
	select {
	case other := <-failed:
		return other
	default:
		return err
	}
}
