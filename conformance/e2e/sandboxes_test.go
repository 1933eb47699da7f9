package e2e

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/internal/files"
	"github.com/istio-pod-network/controller/plugin/record"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sandboxesEnv is the number of sandboxes that TestSandboxes creates.
const sandboxesEnv = "E2E_SANDBOXES"

func sandboxes() int { return numberOf(sandboxesEnv, "SANDBOXES", 40, math.MaxInt32) }

// sandboxesAtOnce is how many sandboxes are created at the same time: enough to keep two processors busy.
const sandboxesAtOnce = 8

// Sandboxes of mesh pods are created and removed through CRI, without a kubelet. Each gets its rules and its mark. In
// the end nothing of them is left on the node, and the agent has not grown beyond a limit.
func TestSandboxes(t *testing.T) {
	count := sandboxes()
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	r.clear(r.namespace)
	resume, err := r.node.Stop("kubelet", "/var/lib/kubelet/pki") // the kubelet removes unknown sandboxes
	must(r, err)
	r.until(resume)
	r.longToken(r.node) // only the kubelet renews the agent's
	client, closed, err := r.node.CRI()
	must(r, err)
	r.Cleanup(func() { _ = closed() })
	s := &sandboxSoak{rig: r, client: client, marks: r.watchMarks()}
	s.come(2 * sandboxesAtOnce) // warm-up: allocates what the agent keeps
	s.took, s.gone = nil, 0
	warm := s.made.Load()
	before := r.footprint(r.node)
	start := time.Now()
	defer func() { // also if one was stuck
		made := int(s.made.Load() - warm)
		r.note("%d sandboxes in %.0f s, %d of them stuck or without rules (none may be)", made, time.Since(start).Seconds(),
			made-s.gone)
		if again := s.again.Load(); again > 0 {
			r.note("containerd was asked again %d times", again)
		}
	}()
	for left := count; left > 0; left -= 1000 {
		s.come(min(left, 1000))
		now := r.footprint(r.node)
		fmt.Fprintf(os.Stderr, "soak: %s, %d of %d sandboxes; %v\n", time.Since(start).Round(time.Second),
			count-max(0, left-1000), count, now)
	}
	after := r.backTo(r.node, before)
	slices.Sort(s.took)
	r.note("each made in %d ms in the median and %d ms at the most, %d at once; %s",
		s.took[len(s.took)/2].Milliseconds(), s.took[len(s.took)-1].Milliseconds(), sandboxesAtOnce,
		after.growth(before, count))
}

// sandboxSoak creates and removes sandboxes.
type sandboxSoak struct {
	*rig
	client runtimev1.RuntimeServiceClient
	marks  *marks
	made   atomic.Int64 // number of sandboxes that were begun
	again  atomic.Int64 // how often a busy containerd was asked again for one

	mu   sync.Mutex
	took []time.Duration // duration of RunPodSandbox
	gone int             // number of sandboxes that were removed without an error
}

// come creates and removes count sandboxes.
func (s *sandboxSoak) come(count int) {
	s.Helper()
	var work sync.WaitGroup
	var begun atomic.Int64
	for range sandboxesAtOnce {
		work.Go(func() {
			for begun.Add(1) <= int64(count) && !s.Failed() {
				if err := s.one(); err != nil { // not Fatal, because this is another goroutine
					s.Error(err)
					continue
				}
				s.mu.Lock()
				s.gone++
				s.mu.Unlock()
			}
		})
	}
	work.Wait()
	if s.Failed() {
		s.FailNow()
	}
}

// one creates and removes a pod object and its sandbox.
func (s *sandboxSoak) one() (err error) {
	pods := nodes.Client.CoreV1().Pods(s.namespace)
	pod := s.meshPod(fmt.Sprint("sandbox-", s.made.Add(1)))
	pod.Spec.NodeName = s.node.Name // without the scheduler, because the node is not ready
	if pod, err = pods.Create(s.ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	now := int64(0)
	defer func() {
		if gone := pods.Delete(s.ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); gone != nil && err == nil {
			err = fmt.Errorf("deleting %s: %w", pod.Name, gone)
		}
	}()
	start := time.Now()
	id, err := s.runSandbox(pod)
	if err != nil {
		return fmt.Errorf("the sandbox of %s: %w", pod.Name, err)
	}
	s.mu.Lock()
	s.took = append(s.took, time.Since(start))
	s.mu.Unlock()
	store := record.Store{Dir: s.node.Path(stateDir)}
	if r, err := store.Get(id, "eth0"); err != nil || r.Decision != record.Redirect || r.PodUID != string(pod.UID) {
		return fmt.Errorf("the record of %s is %+v, %w", pod.Name, r, err)
	} else if err := s.hasRules(r); err != nil {
		return fmt.Errorf("the network of %s: %w", pod.Name, err)
	}
	s.eventually(pod.Name+" is marked", func() bool { return s.marks.has(string(pod.UID)) })
	s.stopSandbox(pod, id)
	if _, err := store.Get(id, "eth0"); err == nil {
		return fmt.Errorf("%s has a record after DEL", pod.Name)
	}
	s.removeSandbox(pod, id)
	return nil
}

// hasRules returns an error if the network namespace of a record has no packet rules of ours. A sandbox without
// containers sends nothing, so a leak would not be seen.
func (s *sandboxSoak) hasRules(r record.Record) error {
	const dir = "/run/netns"
	entries, err := os.ReadDir(s.node.Path(dir))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := os.Stat(filepath.Join(s.node.Path(dir), entry.Name()))
		if err != nil { // another sandbox, which has gone meanwhile
			continue
		}
		inode := info.Sys().(*syscall.Stat_t).Ino
		if !strings.Contains(string(r.NetNS), fmt.Sprintf("/%d/", inode)) {
			continue
		}
		rules, err := s.node.Command("nsenter", "--net="+filepath.Join(dir, entry.Name()), "--", "nft", "list",
			"ruleset").CombinedOutput()
		if err == nil && !strings.Contains(string(rules), "redirect to :15001") {
			err = errors.New("nothing is redirected")
		}
		if err != nil {
			return fmt.Errorf("%w:\n%.2000s", err, rules)
		}
		return nil
	}
	return fmt.Errorf("%s is not in %s of the node", r.NetNS, dir)
}

// runSandbox creates the sandbox of a pod, and returns its ID. A busy containerd may give up after 2 s
// (io.containerd.timeout.task.state). Then it is asked again with the next attempt, as a kubelet does. An error of the
// plugin has another code, and is returned.
func (s *sandboxSoak) runSandbox(pod *corev1.Pod) (id string, err error) {
	config := s.config(pod)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second) {
		var made *runtimev1.RunPodSandboxResponse
		made, err = s.client.RunPodSandbox(s.ctx, &runtimev1.RunPodSandboxRequest{Config: config})
		id = made.GetPodSandboxId()
		code := status.Code(err)
		if code != codes.DeadlineExceeded && code != codes.Unavailable || time.Now().After(deadline) {
			break
		}
		config.Metadata.Attempt++
		s.again.Add(1)
	}
	if config.Metadata.Attempt == 0 || err != nil {
		return id, err
	}
	all, err := s.client.ListPodSandbox(s.ctx, &runtimev1.ListPodSandboxRequest{Filter: &runtimev1.PodSandboxFilter{
		LabelSelector: map[string]string{podUIDLabel: string(pod.UID)}}})
	for _, left := range all.GetItems() { // a kubelet removes what is left of an attempt
		if left.Id != id {
			s.stopSandbox(pod, left.Id)
			s.removeSandbox(pod, left.Id)
		}
	}
	return id, err
}

// podUIDLabel is the label in which a kubelet tells a runtime the UID of a sandbox's pod.
const podUIDLabel = "io.kubernetes.pod.uid"

// stopSandbox asks a busy containerd again, as a kubelet does.
func (s *sandboxSoak) stopSandbox(pod *corev1.Pod, id string) {
	s.Helper()
	s.succeeds("stopping the sandbox of "+pod.Name, func() error {
		_, err := s.client.StopPodSandbox(s.ctx, &runtimev1.StopPodSandboxRequest{PodSandboxId: id})
		return err
	})
}

// removeSandbox asks a busy containerd again, as a kubelet does.
func (s *sandboxSoak) removeSandbox(pod *corev1.Pod, id string) {
	s.Helper()
	s.succeeds("removing the sandbox of "+pod.Name, func() error {
		_, err := s.client.RemovePodSandbox(s.ctx, &runtimev1.RemovePodSandboxRequest{PodSandboxId: id})
		return err
	})
}

// longToken gives the agent on a node a token that does not expire while the kubelet stands still. It replaces the file
// in the pod's volume, which the agent reads again every minute. A kubelet that runs again writes its own there.
func (r *rig) longToken(n *cluster.Node) {
	r.Helper()
	pod, token := r.agentToken(n, 365*24*time.Hour)
	// "..data" is a link to the directory of the files, which are links in the volume's own directory
	path := n.Path(fmt.Sprintf("/var/lib/kubelet/pods/%s/volumes/kubernetes.io~projected/token/..data/token", pod.UID))
	before, err := os.Stat(path)
	must(r, err)
	mode := func(f *os.File) error { return f.Chmod(before.Mode().Perm()) }
	must(r, files.Replace(path, files.Temp(filepath.Dir(path), ".replacing-"), strings.NewReader(token), mode))
	for _, pid := range n.Processes(daemonSet) {
		seen, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/var/run/secrets/kubernetes.io/serviceaccount/token", pid))
		must(r, err)
		if string(seen) != token {
			r.Fatalf("the agent on %s does not see the token in %s", n.Name, path)
		}
	}
}

// config returns the part of the kubelet's sandbox configuration that the plugin needs.
func (s *sandboxSoak) config(pod *corev1.Pod) *runtimev1.PodSandboxConfig {
	return &runtimev1.PodSandboxConfig{
		Metadata: &runtimev1.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID)},
		Labels: map[string]string{"io.kubernetes.pod.name": pod.Name, "io.kubernetes.pod.namespace": pod.Namespace,
			podUIDLabel: string(pod.UID)},
		Annotations: pod.Annotations,
		Linux: &runtimev1.LinuxPodSandboxConfig{CgroupParent: s.node.PodGroup(),
			SecurityContext: &runtimev1.LinuxSandboxSecurityContext{}},
	}
}
