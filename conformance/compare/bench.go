package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/mesh"
)

// Variables that scripts/compare.sh sets: where the images of this tree are, in the version that the chart names, and
// the directory with the two Helms.
const (
	imagesEnv = "COMPARE_IMAGES"
	helmEnv   = "COMPARE_HELM"
)

const podImage = "e2e.local/pod:1"

// Limits of a measurement. What does not come within them counts as stuck, or ends the run.
const (
	patience    = 5 * time.Minute // for installations, and for pods without a fault
	afterFault  = 2 * time.Minute // for pods after a fault
	pollEvery   = 20 * time.Millisecond
	taintKey    = "istio-pod-network-controller/agent-not-ready"
	taintArg    = taintKey + "=:NoSchedule"
	agentRunDir = "/run/istio-cni" // Istio CNI's; it does not remove it
)

// bench is the cluster with istiod in it. Pods are measured on the first node. istiod runs on the second.
type bench struct {
	cluster  *cluster.Cluster
	node     *cluster.Node
	helm     mesh.Helm
	peer     *peer
	before   survey // of the cluster before any way was installed
	faults   bool
	until    time.Time // after this time no further measurement starts
	progress string    // what is being done
}

// newBench starts everything. The caller has to stop what it returns, also after an error.
func newBench(ctx context.Context, bin string) (*bench, error) {
	dir := filepath.Join(bin, "cluster")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	say("bringing up the cluster")
	c, err := cluster.Start(bin, dir, cluster.Current, cluster.Debian)
	if c == nil || err != nil {
		if c != nil {
			c.Stop()
		}
		return nil, err
	}
	b := &bench{cluster: c, node: c.Nodes[0], helm: mesh.Helm{Program: filepath.Join(os.Getenv(helmEnv), "helm4"),
		Kubeconfig: c.Admin(), Bin: bin, Dir: dir}}
	if b.peer, err = newPeer(); err != nil {
		return b, err
	}
	for _, step := range []func() error{b.room, b.images, b.control} {
		if err := step(); err != nil {
			return b, err
		}
	}
	b.before, err = b.look(ctx)
	return b, err
}

// room makes the nodes' plugin directory large enough for Istio CNI's plugin twice, as during its replacement. It also
// lets istiod reach the API server while that is away for the measured node.
func (b *bench) room() error {
	for _, n := range b.cluster.Nodes {
		if err := run(n.Command("mount", "-o", "remount,size=256m", cluster.BinDir)); err != nil {
			return err
		}
	}
	return run(b.cluster.Nodes[1].Command("nft", "flush table ip gate"))
}

// images loads the images of all ways' pods into the nodes.
func (b *bench) images() error {
	bin, dir := b.cluster.Bin, b.cluster.Dir
	pilot, proxy, err := mesh.Images(bin, dir)
	if err != nil {
		return err
	}
	cni, err := mesh.CNIImage(bin, dir)
	if err != nil {
		return err
	}
	pod := filepath.Join(dir, "pod.tar")
	if err := cluster.Image(pod, podImage, "", []cluster.File{{Source: filepath.Join(bin, "podprogram"),
		Path: "podprogram"}}, "/podprogram"); err != nil {
		return err
	}
	tree, err := filepath.Glob(filepath.Join(os.Getenv(imagesEnv), "*.tar"))
	if err != nil || len(tree) == 0 {
		return fmt.Errorf("%s: no images in %q; start this by make compare", imagesEnv, os.Getenv(imagesEnv))
	}
	for _, n := range b.cluster.Nodes {
		for _, archive := range append(tree, proxy, cni, pod) {
			if err := n.Import(archive); err != nil {
				return err
			}
		}
	}
	return b.cluster.Nodes[1].Import(pilot)
}

// outside is the server that pods call, as a ServiceEntry, so that Envoy knows that it speaks HTTP.
var outside = fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: %s}
spec:
  hosts: [outside.example]
  addresses: [%s/32]
  ports: [{number: %d, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: %[2]s}]
`, mesh.Namespace, cluster.Address, peerPort)

// control installs what every way needs: istiod, and the ServiceEntry of the server.
func (b *bench) control() error {
	say("installing istiod")
	if err := b.helm.Install("istio-base", "base", mesh.Namespace, nil); err != nil {
		return err
	}
	if err := b.istiod(ways[0]); err != nil {
		return err
	}
	cmd := b.kubectl("apply", "-f", "-")
	cmd.Stdin = strings.NewReader(outside)
	return run(cmd)
}

// dualStack is the setting that Istio needs for pods with addresses of both families, as the pods here
// (docs/migration.md).
const dualStack = `pilot: {env: {ISTIO_DUAL_STACK: "true"}}
meshConfig: {defaultConfig: {proxyMetadata: {ISTIO_DUAL_STACK: "true"}}}
`

// istiod installs istiod with the values of a way, so that its injector makes that way's pods.
func (b *bench) istiod(w way) error {
	file := filepath.Join(b.cluster.Dir, w.key+".yaml")
	if err := os.WriteFile(file, []byte(cmp.Or(w.values, "{}")), 0o600); err != nil {
		return err
	}
	both := filepath.Join(b.cluster.Dir, "dual-stack.yaml")
	if err := os.WriteFile(both, []byte(dualStack), 0o600); err != nil {
		return err
	}
	files := []string{both, file} // later files override earlier ones
	if w.wait {
		files = slices.Insert(files, 0, waitValues())
	}
	return b.helm.Install("istiod", "istiod", mesh.Namespace, files, append(w.sets,
		"nodeSelector.kubernetes\\.io/hostname="+b.cluster.Nodes[1].Name,
		"global.proxy.resources.requests.cpu=1m")...)
}

func (b *bench) kubectl(args ...string) *exec.Cmd {
	return b.asAdmin(exec.Command(filepath.Join(b.cluster.Bin, "kubectl"), args...))
}

func (b *bench) asAdmin(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(os.Environ(), "KUBECONFIG="+b.cluster.Admin())
	return cmd
}

// run runs a command. Its output is in the error if it fails.
func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// until waits until holds returns true or an error.
func until(ctx context.Context, what string, holds func() (bool, error)) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * pollEvery) {
		done, err := holds()
		switch {
		case err != nil && !passes(err):
			return fmt.Errorf("%s: %w", what, err)
		case err == nil && done:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return errors.Join(fmt.Errorf("not within %v: %s", patience, what), err)
		}
	}
}

// passes reports whether the error is from an overloaded API server, so that the request may be sent again.
func passes(err error) bool {
	return apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

// began is when the program began.
var began = time.Now()

// say reports progress on standard error.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%5.0f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
