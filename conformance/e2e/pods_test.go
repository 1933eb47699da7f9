package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// appUser is a user like OpenShift's for the pods of a namespace. proxyUser is the sidecar's.
const (
	appUser   = 1000660001
	proxyUser = 1337
)

// restricted returns a security context that Pod Security restricted admits.
func restricted(user int64) *corev1.SecurityContext {
	no, yes := false, true
	return &corev1.SecurityContext{
		RunAsUser: &user, RunAsGroup: &user, RunAsNonRoot: &yes, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// appPod returns a pod outside the mesh. Its app calls the peer outside in both families from its first instruction on,
// and serves on 8080 and 8090.
func (r *rig) appPod(name string) *corev1.Pod {
	grace, token := int64(1), false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.namespace, Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			NodeSelector:                  map[string]string{corev1.LabelHostname: r.node.Name},
			TerminationGracePeriodSeconds: &grace, AutomountServiceAccountToken: &token,
			Containers: []corev1.Container{{
				Name: "app", Image: podImage, ImagePullPolicy: corev1.PullNever, SecurityContext: r.app.DeepCopy(),
				Command: []string{"/podprogram", "app", "-name=" + r.namespace + "/" + name, "-serve=8080,8090"},
				Args:    []string{target4, target6},
			}},
		},
	}
}

// meshPod returns an appPod as Istio's injection changes it, with the init wait in place of istio-validation.
func (r *rig) meshPod(name string) *corev1.Pod {
	pod := r.appPod(name)
	pod.Annotations["sidecar.istio.io/status"] = `{"containers":["istio-proxy"]}`
	pod.Spec.InitContainers = []corev1.Container{waitContainer("annotation")}
	pod.Spec.Containers = append([]corev1.Container{sidecarContainer()}, pod.Spec.Containers...)
	pod.Spec.Volumes = []corev1.Volume{{Name: "istio-podinfo",
		VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
			Items: []corev1.DownwardAPIVolumeFile{{Path: "annotations",
				FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}}},
		}}}}
	return pod
}

// waitContainer returns the init wait.
func waitContainer(mode string) corev1.Container {
	return corev1.Container{
		Name: "istio-validation", Image: pluginImage(), ImagePullPolicy: corev1.PullNever,
		SecurityContext: restricted(proxyUser),
		Command:         []string{"/istio-pod-network-wait"}, Args: []string{"--mode=" + mode, "--timeout=1h"},
		VolumeMounts: []corev1.VolumeMount{{Name: "istio-podinfo", MountPath: "/etc/istio/pod"}},
	}
}

// sidecarContainer returns the stand-in for Istio's proxy.
func sidecarContainer() corev1.Container {
	return corev1.Container{
		Name: "istio-proxy", Image: podImage, ImagePullPolicy: corev1.PullNever, SecurityContext: restricted(proxyUser),
		Command: []string{"/podprogram", "sidecar"},
	}
}

// container returns a container of the pod. The caller may change it.
func container(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	panic("no container " + name)
}

func (r *rig) create(pod *corev1.Pod) {
	r.Helper()
	_, err := r.tryCreate(pod)
	must(r, err)
}

func (r *rig) tryCreate(pod *corev1.Pod) (*corev1.Pod, error) {
	return r.person.CoreV1().Pods(pod.Namespace).Create(r.ctx, pod, metav1.CreateOptions{})
}

// dryRun returns the pod as the API server would create it.
func (r *rig) dryRun(pod *corev1.Pod) (*corev1.Pod, error) {
	return r.person.CoreV1().Pods(pod.Namespace).Create(r.ctx, pod, metav1.CreateOptions{DryRun: []string{"All"}})
}

func (r *rig) pod(name string) *corev1.Pod {
	r.Helper()
	pod, err := nodes.Client.CoreV1().Pods(r.namespace).Get(r.ctx, name, metav1.GetOptions{})
	must(r, err)
	return pod
}

// started reports whether all containers of a pod run.
func started(pod *corev1.Pod) bool {
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running == nil {
			return false
		}
	}
	return len(pod.Status.ContainerStatuses) == len(pod.Spec.Containers)
}

// running waits until all containers of the pod run.
func (r *rig) running(name string) *corev1.Pod {
	r.Helper()
	r.eventually("pod "+name+" runs", func() bool { return started(r.pod(name)) })
	return r.pod(name)
}

// says returns the log of a container, or the error as text.
func (r *rig) says(pod, container string) string {
	r.Helper()
	log, err := r.logOf(pod, container)
	if err != nil {
		return err.Error()
	}
	return string(log)
}

func (r *rig) logOf(pod, container string) ([]byte, error) {
	return nodes.Client.CoreV1().Pods(r.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(r.ctx)
}

// said returns the log of a container that has started. It asks again if the kubelet of a busy node does not answer in
// time.
func (r *rig) said(pod, container string) (log string) {
	r.Helper()
	r.succeeds(container+" of "+pod+" has a log", func() error {
		data, err := r.logOf(pod, container)
		log = string(data)
		return err
	})
	return log
}

// enough is how many answers an app must get before it counts as served by its sidecar.
const enough = 20

// hears waits until the app has got an answer to one of its calls enough times.
func (r *rig) hears(pod, target, answer string) {
	r.Helper()
	r.eventually(fmt.Sprintf("the app of %s hears %q from %s, often", pod, answer, target), func() bool {
		return strings.Count(r.says(pod, "app"), target+" answer "+answer+"\n") >= enough
	})
}

// throughSidecar waits until the sidecar has served the app for all targets, by default one per family. It fails if
// anything has bypassed the sidecar.
func (r *rig) throughSidecar(name string, targets ...string) {
	r.Helper()
	if len(targets) == 0 {
		targets = []string{target4, target6}
	}
	r.running(name)
	for _, target := range targets {
		_, address, _ := strings.Cut(target, ":")
		r.hears(name, target, "sidecar-outbound "+address)
	}
	r.noLeak(name)
}

// noLeak counts the app's attempts in a mesh pod, and fails if the app has reached the peer around its sidecar.
func (r *rig) noLeak(name string) {
	r.Helper()
	r.tally(name, r.attemptsOf(name))
}

// attemptsOf waits until the log of an app has an attempt, and returns it. A container that has just replaced another
// has tried nothing yet, and a kubelet that was killed does not answer.
func (r *rig) attemptsOf(name string) (log string) {
	r.Helper()
	r.eventually("the app of "+name+" tries something", func() bool {
		log = r.says(name, "app")
		return tried(log) > 0
	})
	return log
}

// tried returns the number of attempts in an app's log.
func tried(log string) (count int) {
	for _, target := range []string{target4, target6, dns} {
		count += strings.Count(log, target+" ")
	}
	return count
}

// tally counts the app's attempts in its log, and what has reached the peer.
func (r *rig) tally(name, log string) {
	r.Helper()
	for _, target := range []string{target4, target6, dns} {
		if strings.Contains(log, target+" answer peer") {
			r.Errorf("leak: the app of %s was answered by the peer", name)
		}
	}
	leaks := outside.reached(r.namespace, name)
	if leaks > 0 {
		r.Errorf("leak: the app of %s has reached the peer %d times past its sidecar:\n%.1000s", name, leaks, log)
	}
	r.attempts += tried(log)
	r.leaks += leaks
	r.resets += strings.Count(log, "connection reset by peer")
}

// seen is the control of a scenario: the peer must see the same app without a sidecar.
func (r *rig) seen(pod *corev1.Pod) {
	r.Helper()
	r.create(pod)
	r.eventually("the detector sees "+pod.Name, func() bool { return outside.reached(r.namespace, pod.Name) >= enough })
	r.control += outside.reached(r.namespace, pod.Name)
}

// ask calls an address of a pod from outside its node, and returns the answer.
func ask(address string) (answer string, err error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintln(c, "from outside the node")
	data, err := io.ReadAll(c)
	return strings.TrimSpace(string(data)), err
}

// answersFrom fails unless who answers on a port of the pod in every family, and saw the address that was called. It
// calls again if a process of a busy machine was too slow: this one, or the server, which then hangs up.
func (r *rig) answersFrom(who string, pod *corev1.Pod, port int) {
	r.Helper()
	for _, ip := range pod.Status.PodIPs {
		address := net.JoinHostPort(ip.IP, fmt.Sprint(port))
		var answer string
		var err error
		r.eventually(address+" of "+pod.Name+" answers in time", func() bool {
			var late net.Error
			answer, err = ask(address)
			return answer != "" || err != nil && (!errors.As(err, &late) || !late.Timeout())
		})
		if answer != who+" "+address {
			r.Errorf("%s of %s: %q, %v, want %q", address, pod.Name, answer, err, who+" "+address)
		}
	}
	if len(pod.Status.PodIPs) == 0 {
		r.Errorf("%s has no address", pod.Name)
	}
}

// marked waits until the pod is marked initialized, with its network namespace. Its app may run before: a wait of mode
// any also ends after a redirected connection.
func (r *rig) marked(name string) {
	r.Helper()
	r.eventually(name+" is marked", func() bool {
		a := r.pod(name).Annotations
		return a[annotation.Status] == annotation.Initialized && strings.Count(a[annotation.NetNS], "/") == 2
	})
}

// ruleset returns the nftables rule set of a pod.
func (r *rig) ruleset(name string) string {
	r.Helper()
	return r.output(r.inPod(name, "nft", "list", "ruleset"))
}

// inPod returns a command that runs a program of the node in a pod's network namespace. It waits for the pod's
// container, because after the end of a sandbox the API server shows the old one for some time.
func (r *rig) inPod(name string, program ...string) *exec.Cmd {
	r.Helper()
	process := ""
	r.eventually(name+" has a container", func() bool {
		_, id, _ := strings.Cut(r.pod(name).Status.ContainerStatuses[0].ContainerID, "://")
		tasks, _ := r.node.Ctr("tasks", "ls").Output() // a busy containerd may not answer in time
		for line := range strings.Lines(string(tasks)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == id {
				process = f[1]
			}
		}
		return process != ""
	})
	return r.node.Command("nsenter", append([]string{"--target=" + process, "--net", "--"}, program...)...)
}

// asJSON returns a manifest.
func asJSON(object any) []byte {
	data, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return data
}
