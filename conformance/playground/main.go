// Command playground keeps the cluster of the end-to-end tests up for a person, until it gets SIGTERM. It is started by
// scripts/cluster.sh, which prints how to use it.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/files"
)

const usage = `usage: playground DIRECTORY IMAGE.tar...
  brings up a Kubernetes cluster in namespaces of its own, gives its nodes the images, and writes DIRECTORY/kubeconfig
  once it is ready. The API server is reached by way of a port on loopback.
`

func main() {
	if len(os.Args) < 3 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	dir, err := filepath.Abs(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(supervise(playground{dir, os.Args[2:]}))
}

// runtimes are those of the nodes.
var runtimes = []cluster.Runtime{cluster.Current, cluster.Debian}

// playground is what is asked for.
type playground struct {
	dir    string
	images []string
}

// supervise is called on the machine, and again in the namespaces of the cluster.
func supervise(p playground) int {
	if isolated.BinDir() == "" {
		defer os.RemoveAll(p.dir)
		if err := p.listen(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return cluster.Main(p, cluster.Build, runtimes...)
}

const portEnv = "ISTIO_POD_NETWORK_PLAYGROUND_PORT"

// socket is by which what is outside the cluster's network reaches its API server: a socket with a path is in no
// network.
func (p playground) socket() string { return filepath.Join(p.dir, "apiserver.sock") }

// listen makes the API server reachable from the machine, and from nowhere else.
func (p playground) listen() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go forward(l, "unix", p.socket())
	return os.Setenv(portEnv, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
}

// forward passes connections on.
func forward(l net.Listener, network, address string) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer client.Close()
			server, err := net.Dial(network, address)
			if err != nil {
				return
			}
			defer server.Close()
			go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
			_, _ = io.Copy(client, server)
		}()
	}
}

// Run is the cluster's life.
func (p playground) Run() int {
	dir := filepath.Join(isolated.BinDir(), "cluster")
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		var c *cluster.Cluster
		if c, err = cluster.Start(isolated.BinDir(), dir, runtimes...); c != nil {
			defer c.Stop()
		}
		if err == nil {
			err = p.fill(c)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bringing up the cluster:", err)
		return 1
	}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	<-ended.Done()
	return 0
}

// fill gives the nodes the images, and the person what is needed to use the cluster.
func (p playground) fill(c *cluster.Cluster) error {
	for _, n := range c.Nodes {
		for _, image := range p.images {
			if err := n.Import(image); err != nil {
				return err
			}
		}
	}
	l, err := net.Listen("unix", p.socket())
	if err != nil {
		return err
	}
	go forward(l, "tcp", strings.TrimPrefix(c.Server.URL(), "https://"))
	kubeconfig, err := c.Server.Embedded("https://127.0.0.1:" + os.Getenv(portEnv))
	if err != nil {
		return err
	}
	path := filepath.Join(p.dir, "kubeconfig")
	return files.Replace(path, files.Temp(p.dir, ".kubeconfig-"), bytes.NewReader(kubeconfig), nil)
}
