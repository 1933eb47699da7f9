package shapes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const waitName = "istio-validation"

// pod is a pod of a node, with its sandbox.
type pod struct {
	*node
	name        string
	uid         string
	annotations map[string]string
	netns       string
	list        *libcni.NetworkConfigList // with which its network was made
	cni         *libcni.CNIConfig
}

// pod makes a pod's sandbox, and on a node of a cluster its object. Both are removed after the test.
func (n *node) pod(when string, mesh bool) *pod {
	n.Helper()
	kind := map[bool]string{true: "mesh", false: "plain"}[mesh]
	p := &pod{node: n, name: fmt.Sprintf("%s-%s-%d", kind, when, n.number), uid: "5f5b6a0e-0000-4000-8000-000000000001",
		annotations: map[string]string{}}
	p.netns = n.path("netns-" + p.name)
	if mesh {
		p.annotations[annotation.SidecarStatus] = "{}"
	}
	await.Must(n, isolated.NewNetNS(p.netns))
	n.Cleanup(func() { _ = isolated.RemoveNetNS(p.netns) })
	if n.name != "" {
		p.uid = string(p.create(mesh).UID)
	}
	return p
}

// create creates the pod's object. A mesh pod has a sidecar and a running init wait.
func (p *pod) create(mesh bool) *corev1.Pod {
	p.Helper()
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: shop, Annotations: maps.Clone(p.annotations)},
		Spec: corev1.PodSpec{NodeName: p.node.name, Containers: []corev1.Container{{Name: "app", Image: "app",
			SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(bool)}}}},
	}
	if mesh {
		id := int64(1337)
		object.Spec.Containers = append(object.Spec.Containers, corev1.Container{
			Name: "istio-proxy", Image: "proxy", SecurityContext: &corev1.SecurityContext{RunAsUser: &id, RunAsGroup: &id}})
		object.Spec.InitContainers = []corev1.Container{{Name: waitName, Image: "wait"}}
	}
	made, err := client.CoreV1().Pods(shop).Create(context.Background(), object, metav1.CreateOptions{})
	await.Must(p, err)
	return made
}

// arguments returns what the runtime passes.
func (p *pod) arguments() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: p.name, NetNS: p.netns, IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", shop}, {"K8S_POD_NAME", p.name},
			{"K8S_POD_INFRA_CONTAINER_ID", p.name}, {"K8S_POD_UID", p.uid}},
		CapabilityArgs: map[string]any{"io.kubernetes.cri.pod-annotations": p.annotations},
	}
}

// addInTime is add, and add again as by the kubelet if the agent says that its time is over: on a busy machine the API
// server may need longer than the agent waits.
func (p *pod) addInTime() error {
	for deadline := time.Now().Add(patience); ; {
		err := p.add(context.Background())
		if err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) || time.Now().After(deadline) {
			return err
		}
		_ = p.cni.DelNetworkList(context.Background(), p.list, p.arguments())
	}
}

// add gives the pod its network as the runtime does, and sets its status as the kubelet would.
func (p *pod) add(ctx context.Context) (err error) {
	if p.cni, p.list, err = p.runtime(); err != nil {
		return err
	}
	made, err := p.cni.AddNetworkList(ctx, p.list, p.arguments())
	if err != nil || p.node.name == "" {
		return err
	}
	result, err := current.NewResultFromResult(made)
	if err != nil {
		return err
	}
	return p.tell(ctx, result.IPs[0].Address.IP.String())
}

// tell sets the pod's status: it has its network, and its init wait runs.
func (p *pod) tell(ctx context.Context, address string) error {
	now := metav1.Now()
	status := corev1.PodStatus{Phase: corev1.PodPending, PodIP: address, StartTime: &now,
		PodIPs: []corev1.PodIP{{IP: address}}}
	if len(p.annotations) > 0 {
		status.InitContainerStatuses = []corev1.ContainerStatus{{Name: waitName,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}}
	}
	data, err := json.Marshal(map[string]any{"status": status})
	if err == nil {
		_, err = client.CoreV1().Pods(shop).Patch(ctx, p.name, types.MergePatchType, data, metav1.PatchOptions{}, "status")
	}
	return err
}

// remove ends the pod.
func (p *pod) remove(ctx context.Context) error {
	if err := p.cni.DelNetworkList(ctx, p.list, p.arguments()); err != nil {
		return err
	}
	if p.node.name != "" {
		err := client.CoreV1().Pods(shop).Delete(ctx, p.name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
		if err != nil {
			return err
		}
	}
	return isolated.RemoveNetNS(p.netns)
}

func (p *pod) isRecorded() bool {
	_, err := record.Store{Dir: p.entry["stateDir"].(string)}.Get(p.name, "eth0")
	return err == nil
}

func (p *pod) told() map[string]string {
	object, err := client.CoreV1().Pods(shop).Get(context.Background(), p.name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return object.Annotations
}

func (p *pod) isMarked() bool { return p.told()[annotation.Status] == annotation.Initialized }

// wait runs the init wait in the pod, with what the kubelet would mount, and returns its exit status. 0 lets the app
// start.
func (p *pod) wait(args ...string) (status int, output string) {
	p.Helper()
	var file strings.Builder
	for key, value := range p.told() {
		fmt.Fprintf(&file, "%s=%q\n", key, value)
	}
	path := p.path("annotations-" + p.name)
	await.Must(p, os.WriteFile(path, []byte(file.String()), 0o644))
	cmd := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-wait"),
		append([]string{"--file=" + path, "--termination-log="}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000660001, Gid: 1000660001}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	await.Must(p, isolated.InNetNS(p.netns, func() error { _ = cmd.Run(); return nil }))
	return cmd.ProcessState.ExitCode(), out.String()
}

// eventsOf selects the Events of a pod.
func eventsOf(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: "involvedObject.name=" + name}
}
