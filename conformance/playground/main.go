// Command playground keeps the cluster of the end-to-end tests running for a person, until it gets SIGTERM.
// scripts/cluster.sh starts it, and prints how to use it.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/mesh"
	"github.com/istio-pod-network/controller/internal/files"
)

const usage = `usage: playground [-mesh] DIRECTORY IMAGE.tar...
  brings up a Kubernetes cluster in namespaces of its own, gives its nodes the images, and writes DIRECTORY/kubeconfig
  once it is ready. The API server is reached by way of a port on loopback.
  -mesh  builds Istio's images and that of the shop, too, and writes DIRECTORY/istio.yaml, values for them of Istio's
         chart istiod, and DIRECTORY/charts, where Istio's charts are

       playground -check
  says what is wrong with the setting ENVOY, by which another Envoy than the plain one is named, and ends.

       playground -load DIRECTORY ARCHIVE|-|PROGRAM [NAME:TAG]
  gives the nodes of the cluster of that DIRECTORY the images of an archive, as docker save and scripts/images.sh write
  them (- is standard input), or, with a name, an image of one static program.
`

func main() {
	f := flag.NewFlagSet("playground", flag.ExitOnError)
	f.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	withMesh := f.Bool("mesh", false, "")
	load, check := f.Bool("load", false, ""), f.Bool("check", false, "")
	_ = f.Parse(os.Args[1:]) // it exits on an error
	if *check {
		if err := mesh.Check(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		return
	}
	if f.NArg() < 2 || *load && f.NArg() > 3 {
		f.Usage()
		os.Exit(2)
	}
	dir, err := filepath.Abs(f.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if *load {
		if err := (playground{dir: dir}).loadFile(f.Arg(1), f.Arg(2)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(supervise(playground{dir, f.Args()[1:], *withMesh}))
}

// runtimes are the nodes' runtimes.
var runtimes = []cluster.Runtime{cluster.Current, cluster.Debian}

// playground has the values of the flags.
type playground struct {
	dir    string
	images []string
	mesh   bool
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
	return cluster.Main(p, p.build, runtimes...)
}

// build builds what the cluster needs into bin.
func (p playground) build(bin string) error {
	step("building what the cluster needs")
	if err := cluster.Build(bin); err != nil || !p.mesh {
		return err
	}
	step("building istiod, pilot-agent and the shop")
	if err := mesh.Build(bin); err != nil {
		return err
	}
	return build.Conformance(bin, "./shop")
}

// step reports progress. scripts/cluster.sh prints the lines with this beginning.
func step(what string) { fmt.Fprintln(os.Stderr, "playground:", what) }

const portEnv = "ISTIO_POD_NETWORK_PLAYGROUND_PORT"

// socket returns the path of the API server's socket. A process outside the cluster's network namespace can connect to
// a unix socket with a path.
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

// forward accepts connections and forwards them.
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

// Run runs the cluster.
func (p playground) Run() int {
	dir := filepath.Join(isolated.BinDir(), "cluster")
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		step("starting the control plane and two nodes")
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

// registry is the registry to which the pages push the images, so that the pages' commands find them in this cluster.
const registry = "registry.example.com/mesh"

// fill loads the images into the nodes, and writes what a person needs to use the cluster.
func (p playground) fill(c *cluster.Cluster) error {
	images := p.images
	if p.mesh {
		made, err := p.furnish(c.Bin)
		if err != nil {
			return err
		}
		images = append(images, made...)
	}
	step("giving the nodes the images")
	for _, n := range c.Nodes {
		for _, image := range images {
			if err := n.Import(image); err != nil {
				return err
			}
		}
		if err := n.PullableFrom(registry); err != nil {
			return err
		}
	}
	l, err := net.Listen("unix", cluster.LoadSocket(p.dir))
	if err != nil {
		return err
	}
	go cluster.TakeImages(l, c.Dir, c.Nodes)
	if l, err = net.Listen("unix", p.socket()); err != nil {
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

// shopImage is the runtime's name of the image in the shop's chart.
const shopImage = "docker.io/library/shop:0.1.0"

// furnish writes the archives of the mesh's images, and what a person needs to install Istio's charts.
func (p playground) furnish(bin string) (archives []string, err error) {
	pilot, proxy, err := mesh.Images(bin, bin)
	if err != nil {
		return nil, err
	}
	shop := filepath.Join(bin, "shop.tar")
	err = cluster.Image(shop, shopImage, "65532:65532", []cluster.File{{Source: filepath.Join(bin, "shop"),
		Path: "shop"}}, "/shop")
	if err != nil {
		return nil, err
	}
	values, err := mesh.Values(bin)
	if err != nil {
		return nil, err
	}
	charts, err := filepath.EvalSymlinks(filepath.Join(bin, "istio-manifests"))
	if err == nil {
		err = os.Symlink(filepath.Join(charts, "charts"), filepath.Join(p.dir, "charts"))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(p.dir, "istio.yaml"), values, 0o644)
	}
	return []string{pilot, proxy, shop}, err
}
