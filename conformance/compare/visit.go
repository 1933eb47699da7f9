package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// visit is a way that is installed in the cluster.
type visit struct {
	*bench
	way
	namespace string
	watch     *watch
}

// look is the interval at which the kubelet reads its containers' states. A container that starts after another one
// waits for that.
const look = time.Second

// single creates one pod, at a random moment between two looks of the kubelet: a fixed moment would measure its place
// in that second. There is no fault, so the pod has to be served.
func (v *visit) single(ctx context.Context, m *measurement) error {
	time.Sleep(rand.N(look))
	if err := v.come(ctx, m, 1, patience, nil); err != nil {
		return err
	}
	return m.served()
}

// fill creates that many pods at once. They have to be served, too.
func (v *visit) fill(ctx context.Context, m *measurement, pods int) error {
	if err := v.come(ctx, m, pods, patience, nil); err != nil {
		return err
	}
	return m.served()
}

// open makes a namespace for the way's pods, with injection. The agent is not installed yet.
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

// inits returns the init containers of an injected pod, NAME=IMAGE, without the sidecar.
func inits(pod *corev1.Pod) (list []string) {
	for _, c := range pod.Spec.InitContainers {
		if c.Name != sidecar {
			image, _, _ := strings.Cut(filepath.Base(c.Image), ":")
			list = append(list, c.Name+"="+image)
		}
	}
	return list
}

// install installs the agent on the nodes, and waits until it is ready.
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

// tainted adds the startup taint to the node, unless it is there.
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
	err = errors.Join(err, v.empty(ctx)) // before the agent goes: DEL of these pods needs the plugin
	if v.agent != nil {
		err = errors.Join(err, v.helm.Uninstall(v.agent.release, v.agent.namespace))
		if failed := namespaces.Delete(ctx, v.agent.namespace, metav1.DeleteOptions{}); !apierrors.IsNotFound(failed) {
			err = errors.Join(err, failed)
		}
	}
	return errors.Join(err, v.clean(ctx))
}
