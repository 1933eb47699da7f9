package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/golden"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubetesting "k8s.io/client-go/testing"
)

// probedLab is a cluster in memory whose kubelets end each pod at once, and the probe's results by node.
type probedLab struct {
	found map[string]inspect.Probed
	ends  func(node string, p *corev1.Pod) // what happens to a pod instead
	pods  []*corev1.Pod
	src   Source
}

// foundWell is the result of a node with containerd.
func foundWell() inspect.Probed {
	return inspect.Probed{Kernel: "6.12.38-generic", Rules: inspect.Rules{Looked: true, OK: true},
		Networks: []inspect.Network{
			{Directory: "/etc/cni/net.d", Exists: true, File: "/etc/cni/net.d/10-net.conflist", Name: "podnet",
				Chain:  []string{"bridge", "portmap"},
				Others: []string{"/etc/cni/net.d/99-loopback.conf: it is the loopback's"}},
			{Directory: "/var/lib/rancher/k3s/agent/etc/cni/net.d"},
			{Directory: "/var/snap/microk8s/current/args/cni-network"},
		},
		Plugins: []inspect.Plugins{{Directory: "/opt/cni/bin", Exists: true},
			{Directory: "/home/kubernetes/bin", Missing: []string{"bridge"}}},
		Runtimes: []inspect.Runtime{
			{Name: "containerd", Files: []string{"/etc/containerd/config.toml"}, ConfDir: "/etc/cni/net.d",
				BinDirs: []string{"/opt/cni/bin"}, SameConfDir: true, HasBinDir: true},
			{Name: "cri-o", Files: []string{"/etc/crio/crio.conf"}, Problem: "it is another node's"},
		}}
}

func newProbedLab() *probedLab {
	l := &probedLab{found: map[string]inspect.Probed{"node-a": foundWell(), "node-b": foundWell()}}
	l.src = empty().source()
	typed := l.src.Source.(agents).Clientset
	typed.PrependReactor("create", "pods", func(action kubetesting.Action) (bool, runtime.Object, error) {
		p := action.(kubetesting.CreateAction).GetObject().(*corev1.Pod)
		p.UID, p.Status.Phase = "uid", corev1.PodSucceeded
		node := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].
			MatchFields[0].Values[0]
		p.Annotations = map[string]string{"node": node}
		if l.ends != nil {
			l.ends(node, p)
		}
		l.pods = append(l.pods, p)
		return true, p, typed.Tracker().Create(action.GetResource(), p, p.Namespace)
	})
	return l
}

func (l *probedLab) run(ctx context.Context, o options, format output.Format) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	o.tool = "ctl"
	o.probe.pace = temporary.Pace{Poll: time.Millisecond, Beat: time.Millisecond}
	o.probe.stdin, o.probe.stderr = strings.NewReader(""), &errs
	if o.probe.parallel == 0 {
		o.probe.parallel = 1
	}
	if o.probe.timeout == 0 {
		o.probe.timeout = time.Minute
	}
	o.probe.logs = func(ctx context.Context, pod string) ([]byte, error) {
		p, err := l.src.Core.Pods(Namespace).Get(ctx, pod, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if p.Status.Phase != corev1.PodSucceeded && !looked(p) {
			return []byte("starting\nchanging the root to \"/host\": operation not permitted\n"), nil
		}
		return json.Marshal(l.found[p.Annotations["node"]])
	}
	if err = o.probe.read(); err == nil {
		err = o.run(ctx, l.src, output.Writer{Out: &out, Format: format}, "v1.4.0")
	}
	return out.String(), errs.String(), err
}

// there reports whether the temporary namespace exists.
func (l *probedLab) there(t *testing.T) bool {
	t.Helper()
	_, err := l.src.Core.Namespaces().Get(context.WithoutCancel(t.Context()), Namespace, metav1.GetOptions{})
	return err == nil
}

// probing returns the options that create the pods.
func probing(set ...string) options {
	return options{before: true, probe: probeOptions{wanted: true, yes: true, set: set}}
}

// Output about nodes, with the exit status.
func TestProbe(t *testing.T) {
	both := func(change func(*inspect.Probed)) func(*probedLab) {
		return func(l *probedLab) {
			for node, found := range l.found {
				change(&found)
				l.found[node] = found
			}
		}
	}
	oneNode := func(change func(*inspect.Probed)) func(*probedLab) {
		return func(l *probedLab) {
			found := l.found["node-b"]
			change(&found)
			l.found["node-b"] = found
		}
	}
	k3s := func(f *inspect.Probed) {
		f.Networks[1].Exists, f.Networks[1].File, f.Networks[1].Name = true,
			"/var/lib/rancher/k3s/agent/etc/cni/net.d/10-flannel.conflist", "cbr0"
	}
	pending := func(reason, message string) func(*probedLab) {
		return func(l *probedLab) {
			l.ends = func(node string, p *corev1.Pod) {
				if p.Status.Phase = corev1.PodPending; node == "node-b" {
					p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
						Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}
					return
				}
				p.Status.Phase = corev1.PodSucceeded
			}
		}
	}
	for name, test := range map[string]struct {
		make   func(*probedLab)
		o      options
		status int
		words  string
	}{
		"probe-well": {func(*probedLab) {}, probing(), 0, "node-a, node-b: Linux 6.12.38 takes the rules of a pod"},
		"probe-no-nftables": {oneNode(func(f *inspect.Probed) {
			f.Rules = inspect.Rules{Looked: true, Detail: "looking for a backend: no nf_tables"}
		}), probing(), 0, "modprobe nf_tables"},
		"probe-nftables-alone": {oneNode(func(f *inspect.Probed) {
			f.Rules = inspect.Rules{Looked: true, Detail: "looking for a backend: no nf_tables"}
		}), probing("backend=nftables"), 1, "backend=auto"},
		"probe-iptables": {func(*probedLab) {}, probing("backend=iptables-nft"), 0, "backend=auto or nftables changes"},
		"probe-untried": {oneNode(func(f *inspect.Probed) {
			f.Rules = inspect.Rules{Detail: "no backend could be tried: operation not permitted"}
		}), probing(), 0, "not permitted"},
		"probe-other-directory": {both(func(f *inspect.Probed) {
			k3s(f)
			f.Networks[0].File, f.Networks[0].Name, f.Networks[0].Others = "", "", nil
		}), probing(), 1, "10-flannel.conflist (kubernetesDistribution=K3d or K3s)"},
		"probe-two-networks": {both(k3s), probing(), 0, "there is a network in /var/lib/rancher"},
		"probe-no-directory": {both(func(f *inspect.Probed) {
			f.Networks[0] = inspect.Network{Directory: "/x"}
			f.Plugins[0] = inspect.Plugins{Directory: "/y"}
		}), probing("cni.confDir=/x", "cni.binDir=/y"), 1, "there is no directory /x (cni.confDir)"},
		"probe-no-network": {oneNode(func(f *inspect.Probed) {
			f.Networks[0].File, f.Networks[0].Others = "", []string{"/etc/cni/net.d/05-torn.conflist: it is no JSON"}
		}), probing(), 1, "crictl info"},
		"probe-no-primary": {oneNode(func(f *inspect.Probed) {
			f.Networks[0].File, f.Networks[0].Others = "", []string{"/etc/cni/net.d/10-net.conflist"}
		}), probing("cni.primary=blue"), 1, "has the name blue (cni.primary)"},
		"probe-torn-before": {oneNode(func(f *inspect.Probed) {
			f.Networks[0].Others = []string{"/etc/cni/net.d/05-torn.conflist: it is no JSON"}
		}), probing(), 0, "comes before it and cannot be used"},
		"probe-multus-first": {oneNode(func(f *inspect.Probed) {
			f.Networks[0].File, f.Networks[0].Protected = "/etc/cni/net.d/00-multus.conf", "it is a readiness file of its owner"
		}), probing(), 1, "cni.mode=nad"},
		"probe-bin-dir": {oneNode(func(f *inspect.Probed) {
			f.Plugins = []inspect.Plugins{{Directory: "/opt/cni/bin", Exists: true, Missing: []string{"bridge"}},
				{Directory: "/home/kubernetes/bin", Exists: true}}
		}), probing(), 1, "they are in /home/kubernetes/bin"},
		"probe-plugin-missing": {oneNode(func(f *inspect.Probed) {
			f.Plugins[0].Missing = []string{"portmap"}
		}), probing(), 0,
			"lacks the network's plugins portmap"},
		"probe-openshift": {oneNode(func(f *inspect.Probed) {
			f.Networks = []inspect.Network{{Directory: "/etc/cni/multus/net.d", Exists: true},
				{Directory: "/var/run/multus/cni/net.d/vendor-cni-chain"}}
			f.Plugins = []inspect.Plugins{{Directory: "/var/lib/cni/bin", Exists: true}}
		}), probing("kubernetesDistribution=openshift", "openshift.mode=auxChain"), 1, "(cni.auxDir)"},
		"probe-runtime": {both(func(f *inspect.Probed) {
			f.Runtimes[0].ConfDir, f.Runtimes[0].SameConfDir = "/etc/containerd/net.d", false
			f.Runtimes[0].BinDirs, f.Runtimes[0].HasBinDir = []string{"/usr/lib/cni"}, false
			f.Networks[0].File, f.Networks[0].Chain, f.Networks[0].Others = "", nil, nil
		}), probing(), 1, "set the values cni.confDir=/etc/containerd/net.d and cni.binDir=/usr/lib/cni"},
		"probe-runtime-other": {oneNode(func(f *inspect.Probed) {
			f.Runtimes[0].BinDirs, f.Runtimes[0].HasBinDir = []string{"/usr/lib/cni"}, false
		}), probing(), 0, "see whether containerd is started with that file"},
		"probe-runtime-torn": {oneNode(func(f *inspect.Probed) {
			f.Runtimes[0] = inspect.Runtime{Name: "containerd", Files: []string{"/x"}, Problem: "/x: line 1 is no TOML"}
		}), probing(), 0, "which directories containerd reads: /x: line 1"},
		"probe-runtime-unknown": {oneNode(func(f *inspect.Probed) { f.Runtimes = nil }), probing(), 0,
			"has no configuration where one is known to be"},
		"probe-primary": {func(l *probedLab) {
			_ = l.src.Source.(agents).Tracker().Delete(appsv1.SchemeGroupVersion.WithResource("daemonsets"), "kube-flannel",
				"kube-flannel-ds")
			both(func(f *inspect.Probed) { f.Networks[0].Chain = []string{"purple"} })(l)
		}, probing(), 0, "is made by the plugin purple"},
		"probe-plugin-image": {func(l *probedLab) {
			l.ends = func(_ string, p *corev1.Pod) {
				p.Status.Phase = corev1.PodPending
				p.Status.ContainerStatuses = []corev1.ContainerStatus{
					{Name: "probe", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
					{Name: "plugin", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
						Reason: "ErrImagePull", Message: "not found"}}}}
			}
		}, probing("pluginImage.tag=9"), 1, "the image istio-pod-network-plugin:9 cannot be had: ErrImagePull: not found"},
		"probe-plugin-late": {func(l *probedLab) {
			l.ends = func(_ string, p *corev1.Pod) {
				p.Status.Phase = corev1.PodRunning
				p.Status.ContainerStatuses = []corev1.ContainerStatus{
					{Name: "probe", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
					{Name: "plugin", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "Pulling"}}}}
			}
		}, options{before: true, probe: probeOptions{wanted: true, yes: true, timeout: 50 * time.Millisecond}}, 1,
			"not within 50ms"},
		"probe-plugin-broken": {func(l *probedLab) {
			l.ends = func(_ string, p *corev1.Pod) {
				p.Status.Phase = corev1.PodFailed
				p.Status.ContainerStatuses = []corev1.ContainerStatus{
					{Name: "probe", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
					{Name: "plugin", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 128,
						Message: "no such file"}}}}
			}
		}, probing(), 1, "its program has ended with 128: no such file"},
		"probe-image": {pending("ImagePullBackOff", "Back-off pulling image: not found"),
			probing("image.registry=r/", "image.tag=2"), 1,
			"the image r/istio-pod-network-agent:"},
		"probe-failed": {func(l *probedLab) {
			l.ends = func(node string, p *corev1.Pod) {
				if node == "node-b" {
					p.Status.Phase = corev1.PodFailed
					p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
						Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}}}
				}
			}
		}, probing(), 3, "operation not permitted"},
		"probe-evicted": {func(l *probedLab) {
			l.ends = func(_ string, p *corev1.Pod) {
				p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "The node was low on memory."
			}
		}, probing(), 3, "Evicted The node was low on memory."},
		"probe-sample": {func(*probedLab) {}, options{before: true, probe: probeOptions{wanted: true, yes: true, nodes: "1"}},
			0, "other nodes: 1 (--nodes)"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, format := range []output.Format{output.Table, output.JSON} {
				if format == output.JSON && name != "probe-bin-dir" {
					continue
				}
				l := newProbedLab()
				test.make(l)
				stdout, stderr, err := l.run(t.Context(), test.o, format)
				words := strings.Join(strings.Fields(stdout), " ")
				if outcome.StatusOf(err) != test.status || !strings.Contains(words, test.words) {
					t.Errorf("status %d, want %d, and %q: %v\n%s", outcome.StatusOf(err), test.status, test.words, err, stdout)
				}
				if l.there(t) || !strings.HasSuffix(stderr, "removing namespace "+Namespace+"\n") {
					t.Errorf("the namespace is left:\n%s", stderr)
				}
				if format == output.JSON {
					golden.Compare(t, filepath.Join("testdata", name+".json"), stdout)
					continue
				}
				_, nodes, _ := strings.Cut(stdout, "\nNodes\n")
				golden.Compare(t, filepath.Join("testdata", name+".txt"), nodes)
				golden.Fits(t, name, stdout, output.Width)
			}
		})
	}
}

// The pods that are created, and which rights that needs.
func TestProbePods(t *testing.T) {
	l := newProbedLab()
	o := probing("cni.primary=podnet", "agent.seLinuxType=spc_t", "image.tag=2")
	o.probe.files = []string{filepath.Join(t.TempDir(), "values.yaml")}
	const file = "imagePullSecrets: [{name: gone}]\ncni: {runtimeBinDirs: [/usr/libexec/cni]}\n"
	if err := os.WriteFile(o.probe.files[0], []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := l.run(t.Context(), o, output.Table)
	if err != nil || !strings.Contains(strings.Join(strings.Fields(stdout), " "), "pull secret gone, which could not be") {
		t.Errorf("%v: %s", err, stdout)
	}
	plan, _, _ := strings.Cut(stderr, "node-a: its pod starts")
	golden.Compare(t, "testdata/probe-plan.txt", plan)
	golden.Fits(t, "the plan", plan, output.Width)
	if len(l.pods) != 2 {
		t.Fatalf("%d pods", len(l.pods))
	}
	p := l.pods[0]
	c := p.Spec.Containers[0]
	if *p.Spec.AutomountServiceAccountToken || !p.Spec.HostNetwork || !c.VolumeMounts[0].ReadOnly ||
		p.Spec.RestartPolicy != corev1.RestartPolicyNever || *p.Spec.ActiveDeadlineSeconds != 120 ||
		c.Image != "istio-pod-network-agent:2" || c.SecurityContext.SELinuxOptions.Type != "spc_t" ||
		!slices.Contains(c.Args, "--primary=podnet") || !slices.Contains(c.Args, "--runtime-bin-dir=/usr/libexec/cni") ||
		c.Args[2] != "--conf-dir=/etc/cni/net.d" || p.Spec.ImagePullSecrets[0].Name != "gone" {
		t.Errorf("%+v", p.Spec)
	}
}

// A node whose pod does not start in time, and a user who may not create a namespace.
func TestUnprobed(t *testing.T) {
	l := newProbedLab()
	l.ends = func(_ string, p *corev1.Pod) { p.Status.Phase = corev1.PodPending }
	typed := l.src.Source.(agents).Clientset
	event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "e"}, Type: corev1.EventTypeWarning,
		InvolvedObject: corev1.ObjectReference{UID: "uid"}, Reason: "FailedMount", Message: "no such directory"}
	if err := typed.Tracker().Add(event); err != nil {
		t.Fatal(err)
	}
	o := probing()
	o.probe.timeout = 50 * time.Millisecond
	stdout, _, err := l.run(t.Context(), o, output.Table)
	if !errors.Is(err, errUnprobed) || !strings.Contains(strings.Join(strings.Fields(stdout), " "),
		"node-a, node-b: kernel and CNI directories: not within 50ms: FailedMount: no such directory") {
		t.Errorf("%v: %s", err, stdout)
	}
	typed.PrependReactor("create", "namespaces", func(kubetesting.Action) (bool, runtime.Object, error) {
		return true, nil, forbidden("namespaces")
	})
	stdout, _, err = l.run(t.Context(), probing(), output.Table)
	if outcome.StatusOf(err) != outcome.NotAsked || !strings.Contains(stdout, "create on namespaces") {
		t.Errorf("%v: %s", err, stdout)
	}
}
