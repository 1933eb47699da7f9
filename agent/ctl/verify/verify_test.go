package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/flows/report"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubetesting "k8s.io/client-go/testing"
)

// short is a timeout for what does not happen.
const short = 50 * time.Millisecond

// Output about a cluster with a fault on one node, with the exit status. The temporary namespace is always removed.
func TestVerify(t *testing.T) {
	short := options{timeout: short}
	for name, test := range map[string]struct {
		make    func(*fakeCluster)
		options options
		status  int
	}{
		"well": {func(*fakeCluster) {}, options{}, outcome.Well},
		"not-redirected": {func(f *fakeCluster) {
			f.edit("mesh/app", func(r *report.Result) {
				if r.Family == "IPv6" && strings.HasPrefix(r.Want, "sidecar-") {
					r.Got, r.Well = report.Peer, false
				}
			})
		}, options{}, outcome.NotWell},
		"escape": {func(f *fakeCluster) {
			f.edit("mesh/app", func(r *report.Result) {
				if r.IsEscape() && r.Family == "IPv4" {
					r.Got, r.Error, r.Well = report.Peer, "", false
				}
			})
		}, options{}, outcome.NotWell},
		"leak-seen-by-the-peer-alone": {func(f *fakeCluster) {
			f.logs["node-b/peer/app"] += report.Reached + "mesh escape/from-port IPv4\n" + report.Reached + "mesh dns IPv6\n"
		}, options{}, outcome.NotWell},
		"attempt-shows-nothing": {func(f *fakeCluster) {
			f.edit("plain/app", func(r *report.Result) {
				if r.IsEscape() {
					r.Got, r.Error = "", "i/o timeout"
				}
			})
		}, options{}, outcome.Well},
		"control-not-seen": {func(f *fakeCluster) {
			f.edit("plain/app", func(r *report.Result) {
				if r.Flow == report.Outbound {
					r.Got, r.Error, r.Well = "", "i/o timeout", false
				}
			})
		}, options{}, outcome.NotAsked},
		"network-stops-it": {func(f *fakeCluster) {
			for _, who := range []string{"plain/app", "mesh/app"} {
				f.edit(who, func(r *report.Result) {
					if r.Flow == report.ExcludedInbound {
						r.Got, r.Error, r.Well = "", "i/o timeout", false
					}
				})
			}
		}, options{}, outcome.NotAsked},
		"says-nothing": {func(f *fakeCluster) {
			f.logs["node-b/mesh/app"], f.logs["node-b/mesh/istio-proxy"] = "ended before all flows were made\n", ""
		}, options{}, outcome.NotAsked},
		"no-sandbox": {func(f *fakeCluster) {
			f.change = onB("mesh", func(p *corev1.Pod) {
				pending(p)
				f.warned(p, "FailedCreatePodSandBox", "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to "+
					`setup network for sandbox "`+strings.Repeat("0123456789abcdef", 4)+`": plugin type="istio-pod-network" `+
					"failed (add): istio-pod-network: no answer within 20s: dial unix /run/istio-pod-network/agent.sock: "+
					"connect: connection refused; nobody listens on the socket: check whether the agent of this node has stopped")
			})
		}, short, outcome.NotWell},
		"no-sandbox-for-long": {func(f *fakeCluster) { // the test does not wait for the timeout
			f.change = onB("mesh", func(p *corev1.Pod) {
				pending(p)
				for i := range 3 {
					f.warnedAt(p, time.Date(2026, 1, 2, 3, 4, 12*i, 0, time.UTC), "FailedCreatePodSandBox",
						fmt.Sprintf("failed to set up sandbox %d: plugin type=\"istio-pod-network\" failed (add)", i))
				}
			})
		}, options{}, outcome.NotWell},
		"no-network": {func(f *fakeCluster) {
			f.change = onB("peer", func(p *corev1.Pod) {
				pending(p)
				for i := range 3 {
					f.warnedAt(p, time.Date(2026, 1, 2, 3, 4, 12*i, 0, time.UTC), "NetworkNotReady",
						"network is not ready: cni plugin not initialized")
				}
			})
		}, options{}, outcome.NotAsked},
		"wait-fails": {func(f *fakeCluster) {
			f.change = onB("mesh", func(p *corev1.Pod) {
				pending(p)
				p.Status.Phase = corev1.PodFailed
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "annotation", State: corev1.ContainerState{
					Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}}}
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{
					Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}}}
			})
			f.logs["node-b/mesh/annotation"] = "waiting\nannotation pod-network-controller.istio.io/status is absent\n"
		}, options{}, outcome.NotWell},
		"still-waits": {func(f *fakeCluster) {
			f.change = onB("mesh", func(p *corev1.Pod) {
				pending(p)
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "probe", State: corev1.ContainerState{
					Running: &corev1.ContainerStateRunning{}}}}
			})
			f.logs["node-b/mesh/probe"] = "the connection was not redirected\n"
		}, short, outcome.NotWell},
		"image": {func(f *fakeCluster) {
			f.change = onB("peer", func(p *corev1.Pod) {
				pending(p)
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{
					Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "401 Unauthorized"}}}}
			})
		}, short, outcome.NotAsked},
		"no-place": {func(f *fakeCluster) {
			f.change = onB("peer", func(p *corev1.Pod) {
				pending(p)
				p.Status.Conditions[0] = corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
					Reason: "Unschedulable", Message: "0/3 nodes are available: 1 Insufficient memory."}
			})
		}, short, outcome.NotAsked},
		"refused": {func(f *fakeCluster) {
			f.PrependReactor("create", "pods", func(action kubetesting.Action) (bool, runtime.Object, error) {
				p := action.(kubetesting.CreateAction).GetObject().(*corev1.Pod)
				if nodeOf(p) != "node-b" {
					return false, nil, nil
				}
				return true, nil, apierrors.NewForbidden(corev1.Resource("pods"), p.Name, errors.New("exceeded quota"))
			})
		}, options{}, outcome.NotAsked},
		"sidecar-fails": {func(f *fakeCluster) {
			f.change = onB("mesh", func(p *corev1.Pod) {
				p.Status.Phase, p.Status.ContainerStatuses[0].State.Terminated.ExitCode = corev1.PodFailed, 1
			})
			f.logs["node-b/mesh/app"] += "istio-pod-network-flows: read tcp 127.0.0.1:15020: connection reset by peer\n"
		}, options{}, outcome.NotAsked},
		"one-node": {func(*fakeCluster) {}, options{nodes: "node-b"}, outcome.Well},
	} {
		t.Run(name, func(t *testing.T) {
			for format, suffix := range map[output.Format]string{output.Table: ".txt", output.Wide: "-wide.txt",
				output.JSON: ".json", output.YAML: ".yaml"} {
				if full := name == "well" || name == "escape"; format != output.Table && !full {
					continue
				}
				f := newFake(t)
				test.make(f)
				o := test.options
				o.junit = filepath.Join(t.TempDir(), "junit.xml")
				status, stdout, stderr, err := f.run(t.Context(), o, format)
				if status != test.status {
					t.Errorf("%s: status %d, want %d: %v\n%s", format, status, test.status, err, stderr)
				}
				golden.Compare(t, filepath.Join("testdata", name+suffix), stdout)
				if format == output.Table || format == output.Wide {
					golden.Fits(t, name, stdout, output.Width)
				}
				if suffix == "-wide.txt" {
					data, err := os.ReadFile(o.junit)
					if err != nil {
						t.Fatal(err)
					}
					golden.Compare(t, filepath.Join("testdata", name+".xml"), string(data))
				}
				if f.there(t) != nil {
					t.Errorf("the namespace is left:\n%s", stderr)
				}
			}
		})
	}
}

// If the user ends the run, the results so far are written, and nothing is left.
func TestInterrupted(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	f.change = onB("plain", func(p *corev1.Pod) {
		pending(p)
		cancel(errors.New("interrupt signal received"))
	})
	status, stdout, stderr, _ := f.run(ctx, options{parallel: 1}, output.Table)
	if status != outcome.NotAsked || !strings.Contains(stdout, "1 well, 0 not well, 1 not proven") ||
		!strings.Contains(stdout, "interrupt signal received") {
		t.Errorf("status %d:\n%s", status, stdout)
	}
	if !strings.HasSuffix(stderr, "removing namespace "+Namespace+"\n") || f.there(t) != nil {
		t.Errorf("the namespace is left:\n%s", stderr)
	}
}

// A request may create the namespace although its answer does not come.
func TestInterruptedWhileItIsMade(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.PrependReactor("create", "namespaces", func(action kubetesting.Action) (bool, runtime.Object, error) {
		cancel()
		n := action.(kubetesting.CreateAction).GetObject().(*corev1.Namespace)
		return true, nil, errors.Join(f.Tracker().Create(action.GetResource(), n, ""), context.Canceled)
	})
	if status, _, stderr, err := f.run(ctx, options{}, output.Table); status != outcome.NotAsked || f.there(t) != nil {
		t.Errorf("status %d, %v: the namespace is left:\n%s", status, err, stderr)
	}
}

// If something cannot be asked, nothing is created.
func TestUnasked(t *testing.T) {
	none := func(*fakeCluster) {}
	forbid := func(verb, resource string) func(*fakeCluster) {
		return func(f *fakeCluster) {
			f.PrependReactor(verb, resource, func(kubetesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewForbidden(corev1.Resource(resource), "", errors.New(`User "reader" cannot`))
			})
		}
	}
	for says, test := range map[string]struct {
		make    func(*fakeCluster)
		options options
		status  int
	}{
		"the verb list on daemonsets":                   {forbid("list", "daemonsets"), options{}, outcome.NotAsked},
		"the verb list on nodes":                        {forbid("list", "nodes"), options{}, outcome.NotAsked},
		"reading ConfigMap istio-pod-network-verify in": {forbid("get", "configmaps"), options{}, outcome.NotAsked},
		"the verb create on namespaces":                 {forbid("create", "namespaces"), options{}, outcome.NotAsked},
		"the verb create on serviceaccounts":            {forbid("create", "serviceaccounts"), options{}, outcome.NotAsked},
		"no agent of istio-pod-network":                 {none, options{namespace: "other"}, outcome.NotAsked},
		"some of node-a,node-b":                         {none, options{nodes: "node-a,windows"}, outcome.Misused},
	} {
		f := newFake(t)
		test.make(f)
		status, stdout, _, err := f.run(t.Context(), test.options, output.Table)
		if status != test.status || err == nil || !strings.Contains(err.Error(), says) || stdout != "" || f.there(t) != nil {
			t.Errorf("%s: status %d, %v: %s", says, status, err, stdout)
		}
	}
}

// The pods of one node are made from the chart's pod.
func TestPods(t *testing.T) {
	f := newFake(t)
	if status, _, _, err := f.run(t.Context(), options{nodes: "node-b", image: "r/plugin:2"}, output.Table); status != 0 {
		t.Fatal(err)
	}
	if names := slices.Sorted(maps.Keys(f.pods)); !slices.Equal(names, []string{"mesh-0", "peer-0", "plain-0"}) {
		t.Fatalf("%q", names)
	}
	secret := ""
	for name, p := range f.pods {
		s := p.Spec
		if p.Namespace != Namespace || nodeOf(p) != "node-b" || *s.AutomountServiceAccountToken ||
			s.ServiceAccountName != accountName || *s.ActiveDeadlineSeconds != 120 ||
			s.RestartPolicy != corev1.RestartPolicyNever || s.Tolerations[0].Operator != corev1.TolerationOpExists {
			t.Errorf("%s: %+v", name, s)
		}
		for _, c := range s.Containers {
			if i := len(c.Env) - 1; i < 0 || c.Env[i].Name != report.Secret || len(c.Env[i].Value) < 20 ||
				secret != "" && c.Env[i].Value != secret {
				t.Errorf("%s: %+v", name, c.Env)
			} else {
				secret = c.Env[i].Value
			}
		}
		for _, c := range slices.Concat(s.InitContainers, s.Containers) {
			if c.Image != "r/plugin:2" || c.SecurityContext == nil {
				t.Errorf("%s: %+v", name, c)
			}
		}
		if mesh := name == "mesh-0"; (p.Annotations[annotation.SidecarStatus] != "") != mesh ||
			(len(s.InitContainers) > 0) != mesh {
			t.Errorf("%s: annotations %v, init containers %v", name, p.Annotations, s.InitContainers)
		}
	}
	mesh, plain, peer := f.pods["mesh-0"], f.pods["plain-0"], f.pods["peer-0"]
	if mesh.Annotations[annotation.ExcludeInboundPorts] != "8090" ||
		mesh.Annotations[annotation.ExcludeOutboundPorts] != "8082" {
		t.Errorf("%v", mesh.Annotations)
	}
	for _, c := range mesh.Spec.Containers {
		if !slices.Contains(c.Args, "--peer=10.0.0.9,fd00::9") || !slices.Contains(c.Args, "--name=mesh") ||
			slices.Contains(c.Args, "--outside") || !slices.Contains(c.Args, "--quit") {
			t.Errorf("%s: %q", c.Name, c.Args)
		}
	}
	args := plain.Spec.Containers[0].Args
	for _, arg := range []string{"--outside", "--name=plain", "--peer=10.0.0.9,fd00::9", "--dns"} {
		if !slices.Contains(args, arg) {
			t.Errorf("no %s in %q", arg, args)
		}
	}
	c := peer.Spec.Containers[0]
	if !slices.Equal(c.Command, []string{program, "peer"}) || c.Args != nil || c.ReadinessProbe == nil ||
		len(peer.Spec.SecurityContext.Sysctls) != 1 {
		t.Errorf("%+v", c)
	}
}

// If pods do not recognise each other by a secret, as with an older image, that is reported.
func TestUnsealed(t *testing.T) {
	f := newFake(t)
	f.logs["node-b/peer/app"] = strings.Replace(f.logs["node-b/peer/app"], report.Sealed, "something else", 1)
	status, stdout, _, err := f.run(t.Context(), options{}, output.Table)
	if status != outcome.Well || !strings.Contains(stdout, "whether who answers is a pod of this run") {
		t.Errorf("status %d, %v:\n%s", status, err, stdout)
	}
	if _, stdout, _, _ = newFake(t).run(t.Context(), options{}, output.Table); strings.Contains(stdout, "of this run") {
		t.Errorf("%s", stdout)
	}
}

// The release's pull secrets are copied, and what could not be copied is reported.
func TestPullSecrets(t *testing.T) {
	f := newFake(t)
	config, err := f.CoreV1().ConfigMaps(agents).Get(t.Context(), configMap, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config.Data[podKey] = strings.Replace(config.Data[podKey], "\nspec:\n",
		"\nspec:\n  imagePullSecrets: [{name: regcred}, {name: gone}]\n", 1)
	secrets := corev1.SchemeGroupVersion.WithResource("secrets")
	err = errors.Join(
		f.Tracker().Update(corev1.SchemeGroupVersion.WithResource("configmaps"), config, agents),
		f.Tracker().Create(secrets, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: "regcred"},
			Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{".dockerconfigjson": []byte("{}")}}, agents))
	if err != nil {
		t.Fatal(err)
	}
	_, stdout, _, _ := f.run(t.Context(), options{}, output.JSON)
	copied, err := f.CoreV1().Secrets(Namespace).Get(t.Context(), "regcred", metav1.GetOptions{})
	if err != nil || copied.Type != corev1.SecretTypeDockerConfigJson || string(copied.Data[".dockerconfigjson"]) != "{}" {
		t.Errorf("%+v, %v", copied, err)
	}
	if !strings.Contains(stdout, "images that need the pull secret gone, which could not be copied") {
		t.Errorf("%s", stdout)
	}
	if pulls := f.pods["peer-0"].Spec.ImagePullSecrets; len(pulls) != 2 {
		t.Errorf("%v", pulls)
	}
}
