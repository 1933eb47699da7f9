package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/mesh"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What scripts/compare.sh says: where the images of this tree are, in the version that the chart names, and the
// directory of the Helms.
const (
	imagesEnv = "COMPARE_IMAGES"
	helmEnv   = "COMPARE_HELM"
)

const podImage = "e2e.local/pod:1"

// Durations that bound a measurement. What has not come within one counts as stuck, or ends the run.
const (
	patience    = 5 * time.Minute // for installations, and for pods without a fault
	afterFault  = 2 * time.Minute // for pods after a fault
	pollEvery   = 20 * time.Millisecond
	taintKey    = "istio-pod-network-controller/agent-not-ready"
	taintArg    = taintKey + "=:NoSchedule"
	agentRunDir = "/run/istio-cni" // Istio CNI's, which it leaves
)

// bench is the cluster with istiod in it. Pods are measured on the first node; istiod is on the second.
type bench struct {
	cluster  *cluster.Cluster
	node     *cluster.Node
	helm     mesh.Helm
	peer     *peer
	before   survey // of the cluster without any way
	faults   bool
	until    time.Time // when no more is begun
	progress string    // what is being done
}

// newBench brings everything up. What it returns is to be stopped, also after an error.
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

// room has the nodes' directory of plugins take Istio CNI's, twice, as while it is replaced; and lets istiod reach the
// API server while that is away for the node that is measured.
func (b *bench) room() error {
	for _, n := range b.cluster.Nodes {
		if err := run(n.Command("mount", "-o", "remount,size=256m", cluster.BinDir)); err != nil {
			return err
		}
	}
	return run(b.cluster.Nodes[1].Command("nft", "flush table ip gate"))
}

// images gives the nodes all that pods of any way are made of.
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

// outside is the server that pods call, as a service of the mesh: so Envoy knows that it speaks HTTP.
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

// control installs what every way has: istiod, and the server as a service of the mesh.
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

// dualStack is what Istio has to be told where pods have addresses of both families, as those here have
// (docs/migration.md).
const dualStack = `pilot: {env: {ISTIO_DUAL_STACK: "true"}}
meshConfig: {defaultConfig: {proxyMetadata: {ISTIO_DUAL_STACK: "true"}}}
`

// istiod has its injector make the pods of a way.
func (b *bench) istiod(w way) error {
	file := filepath.Join(b.cluster.Dir, w.key+".yaml")
	if err := os.WriteFile(file, []byte(cmp.Or(w.values, "{}")), 0o600); err != nil {
		return err
	}
	both := filepath.Join(b.cluster.Dir, "dual-stack.yaml")
	if err := os.WriteFile(both, []byte(dualStack), 0o600); err != nil {
		return err
	}
	files := []string{both, file} // what comes later wins
	if w.wait {
		files = slices.Insert(files, 0, waitValues())
	}
	return b.helm.Install("istiod", "istiod", mesh.Namespace, files, append(w.sets,
		"nodeSelector.kubernetes\\.io/hostname="+b.cluster.Nodes[1].Name,
		"global.proxy.resources.requests.cpu=1m")...)
}

// rounds measures all that the state does not have yet.
func (b *bench) rounds(ctx context.Context, p plan, chosen []way, s *state) error {
	say("the seed of the order is %d", s.seed)
	for round := 1; round <= p.rounds; round++ {
		for _, w := range order(chosen, s.seed, round) {
			parts := b.parts(p, round, w)
			if !slices.ContainsFunc(parts, func(part part) bool { return !s.has(part.measurement) }) {
				continue
			}
			if time.Now().After(b.until) {
				say("the time is over; the next run goes on here")
				return nil
			}
			b.progress = fmt.Sprintf("round %d of %d, %s", round, p.rounds, w.key)
			if err := b.measure(ctx, w, parts, s); err != nil {
				return fmt.Errorf("%s: %w", b.progress, err)
			}
		}
	}
	return nil
}

// order is that of the ways in a round.
func order(chosen []way, seed uint64, round int) []way {
	shuffled := slices.Clone(chosen)
	rand.New(rand.NewPCG(seed, uint64(round))).Shuffle(len(shuffled), func(i, j int) {
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	})
	return shuffled
}

// part is a measurement that is to be made, of a way that is installed, or that is not yet.
type part struct {
	measurement
	early bool // it begins without the agent, and installs it
	do    doing
}

// doing is how a measurement is made.
type doing func(*visit, context.Context, *measurement) error

// visit is a way that is installed in a cluster.
type visit struct {
	*bench
	way
	namespace string
	watch     *watch
}

// parts are what is to be measured of a way in a round.
func (b *bench) parts(p plan, round int, w way) []part {
	var all []part
	add := func(name string, early bool, count int, do doing) {
		for i := range count {
			all = append(all, part{measurement{Round: round, Way: w.key, Part: name, Number: i + 1}, early, do})
		}
	}
	wrong := 0 // how often each fault comes
	if b.faults && round == 1 && !w.direct {
		wrong = 1
	}
	for _, f := range faults {
		if f.early && w.agent != nil {
			add(f.name, true, wrong, f.do)
		}
	}
	if round == 1 {
		add(partNeeds, false, 1, (*visit).needs)
	}
	add(partSingle, false, p.single, (*visit).single)
	if p.full > 0 {
		add(partFill, false, 1, func(v *visit, ctx context.Context, m *measurement) error { return v.fill(ctx, m, p.full) })
	}
	for _, f := range faults {
		if !f.early && (w.agent != nil || !f.agent) {
			add(f.name, false, wrong, f.do)
		}
	}
	return all
}

// single has one pod come. Nothing is wrong, so it has to be served as the way means it.
func (v *visit) single(ctx context.Context, m *measurement) error {
	if err := v.come(ctx, m, 1, patience, nil); err != nil {
		return err
	}
	return m.served()
}

// served is an error if a pod was not served as its way means it.
func (m measurement) served() error {
	if m.Stuck+m.Leaked+m.Silent == 0 {
		return nil
	}
	return fmt.Errorf("not as it should be: %s, %d without a request", m.line(), m.Silent)
}

// fill has that many pods come at once.
func (v *visit) fill(ctx context.Context, m *measurement, pods int) error {
	return v.come(ctx, m, pods, patience, nil)
}

// measure installs a way, makes the measurements that the state lacks, and removes it.
func (b *bench) measure(ctx context.Context, w way, parts []part, s *state) (err error) {
	v, err := b.open(ctx, w, parts[0].Round)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, v.close(ctx))
	}()
	installed := false
	for _, p := range parts {
		if s.has(p.measurement) {
			continue
		}
		if time.Now().After(b.until) {
			return nil
		}
		if !p.early && !installed {
			if err := v.install(ctx); err != nil {
				return err
			}
		}
		installed = true // an early part has done so, too
		m := p.measurement
		if err := p.do(v, ctx, &m); err != nil {
			return fmt.Errorf("%s %d: %w", m.Part, m.Number, err)
		}
		say("%s: %s", b.progress, m.line())
		if err := s.add(m); err != nil {
			return err
		}
	}
	return nil
}

// line is a measurement for whoever waits.
func (m measurement) line() string {
	if m.Needs != nil {
		return fmt.Sprintf("needs Pod Security %s, containers %q, credentials %q", m.Needs.Level, m.Needs.Containers,
			m.Needs.Tokens)
	}
	return fmt.Sprintf("%s %d: %d pods, ready after %.2f s, first request after %.2f s, %d leaked, %d stuck", m.Part,
		m.Number, m.Count, m.Ready, m.Request, m.Leaked, m.Stuck)
}

// open makes a namespace in which the injector makes the pods of a way. The agent is not there yet.
func (b *bench) open(ctx context.Context, w way, round int) (*visit, error) {
	say("%s: installing", b.progress)
	v := &visit{bench: b, way: w, namespace: fmt.Sprintf("compare-%d-%s", round, w.key)}
	if err := b.istiod(w); err != nil {
		return nil, err
	}
	labels := map[string]string{"istio-injection": "enabled", enforce: w.level}
	_, err := b.cluster.Client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v.namespace, Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	if v.watch, err = b.watchPods(ctx, v.namespace); err != nil {
		return v, err
	}
	return v, until(ctx, "the injector makes pods of this way", func() (bool, error) {
		pod, err := b.cluster.Client.CoreV1().Pods(v.namespace).Create(ctx, v.newPod("try"),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && slices.Equal(inits(pod), w.inits), nil
	})
}

// inits are the init containers of an injected pod, in short.
func inits(pod *corev1.Pod) (list []string) {
	for _, c := range pod.Spec.InitContainers {
		if c.Name != sidecar {
			image, _, _ := strings.Cut(filepath.Base(c.Image), ":")
			list = append(list, c.Name+"="+image)
		}
	}
	return list
}

// install brings the agent to the nodes, and waits until it is ready.
func (v *visit) install(ctx context.Context) error {
	a := v.agent
	if a == nil {
		return nil
	}
	if v.taint {
		if err := v.tainted(); err != nil {
			return err
		}
	}
	if a.chart != "" {
		if err := v.helm.Install(a.release, a.chart, a.namespace, nil, a.sets...); err != nil {
			return err
		}
	} else if err := v.ours(); err != nil {
		return err
	}
	return until(ctx, "the startup taint is gone", func() (bool, error) {
		n, err := v.cluster.Client.CoreV1().Nodes().Get(ctx, v.node.Name, metav1.GetOptions{})
		return err == nil && !slices.ContainsFunc(n.Spec.Taints,
			func(t corev1.Taint) bool { return t.Key == taintKey }), nil
	})
}

// tainted gives the node the startup taint, unless it has it.
func (v *visit) tainted() error {
	return run(v.kubectl("taint", "--overwrite", "node", v.node.Name, taintArg))
}

// ours installs this project's chart.
func (v *visit) ours() error {
	args := []string{"upgrade", "--install", v.agent.release, filepath.Join(build.Root(), "chart", v.agent.release),
		"--namespace=" + v.agent.namespace, "--create-namespace", "--wait", "--timeout=5m", "--reset-values"}
	for _, set := range v.agent.sets {
		args = append(args, "--set="+set)
	}
	return run(v.asAdmin(exec.Command(v.helm.Program, args...)))
}

// close removes the way, and waits until nothing of it is left.
func (v *visit) close(ctx context.Context) error {
	say("%s: removing", v.progress)
	v.watch.stop()
	namespaces := v.cluster.Client.CoreV1().Namespaces()
	err := namespaces.Delete(ctx, v.namespace, metav1.DeleteOptions{})
	err = errors.Join(err, v.empty(ctx)) // its pods need the plugin for DEL
	if v.agent != nil {
		err = errors.Join(err, v.helm.Uninstall(v.agent.release, v.agent.namespace))
		if failed := namespaces.Delete(ctx, v.agent.namespace, metav1.DeleteOptions{}); !apierrors.IsNotFound(failed) {
			err = errors.Join(err, failed)
		}
	}
	return errors.Join(err, v.clean(ctx))
}

func (b *bench) kubectl(args ...string) *exec.Cmd {
	return b.asAdmin(exec.Command(filepath.Join(b.cluster.Bin, "kubectl"), args...))
}

func (b *bench) asAdmin(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(os.Environ(), "KUBECONFIG="+b.cluster.Admin())
	return cmd
}

// run runs a command that says something only if it fails.
func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// until waits for something that is to come, or for an error.
func until(ctx context.Context, what string, holds func() (bool, error)) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * pollEvery) {
		done, err := holds()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		case done:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("not within %v: %s", patience, what)
		}
	}
}

// began is when the program began.
var began = time.Now()

// say tells whoever waits what is being done.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%5.0f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
