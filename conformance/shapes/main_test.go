package shapes

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// client reaches the API server of all nodes with all rights. credentials is the path of the agents' kubeconfig.
var (
	client      *kubernetes.Clientset
	credentials string
)

// Namespaces of the agents and of the pods.
const (
	system = "mesh-system"
	shop   = "shop"
)

// atOnce is how many nodes run at the same time: most of the time a node waits.
const atOnce = "6"

// run starts the API server before the tests and stops it after them.
type run struct{ m *testing.M }

func (r run) Run() int {
	dir, err := os.MkdirTemp("", "istio-pod-network-shapes-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = flag.Set("test.parallel", atOnce)
	}
	var server *apiserver.Server
	if err == nil {
		server, err = apiserver.Start(isolated.BinDir(), dir, apiserver.WithoutControllers)
	}
	if err == nil {
		defer server.Stop()
		credentials = filepath.Join(dir, "kubeconfig")
		err = furnish(server)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the API server:", err)
		return 1
	}
	return r.m.Run()
}

// furnish creates what the agents of all nodes share.
func furnish(server *apiserver.Server) (err error) {
	if client, err = kubernetes.NewForConfig(server.Admin()); err != nil {
		return err
	}
	ctx := context.Background()
	for _, name := range []string{system, shop} {
		_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
			metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	return server.Authorize(ctx, filepath.Join(build.Root(), "agent", "rbac.yaml"), system, credentials)
}

func TestMain(m *testing.M) { os.Exit(isolated.Main(run{m}, prepare)) }

func prepare(bin string) error {
	if err := build.Link(bin, apiserver.Programs...); err != nil {
		return err
	}
	if err := build.CNI(bin); err != nil {
		return err
	}
	if err := build.Helm(bin); err != nil {
		return err
	}
	return build.Product(bin, "./install/istio-pod-network-install", "./agent/istio-pod-network-agent",
		"./plugin/istio-pod-network-wait")
}
