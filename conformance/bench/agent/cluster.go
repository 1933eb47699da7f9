package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const (
	nodeName  = "node"
	namespace = "shop"
	account   = "mesh"
	listen    = "127.0.0.1:15088"
)

// cluster is an API server, an agent, and an observer of the agent's marks. The records are on a tmpfs, as on a node.
type cluster struct {
	dir       string
	server    *apiserver.Server
	client    *kubernetes.Clientset
	store     record.Store
	agent     *exec.Cmd
	observer  context.CancelFunc
	pods      int // number of pods made so far, for their names
	sandboxes int
	selection redirect.Selection // in the plugin's entry; empty for the default

	mu     sync.Mutex
	marked map[string]time.Time // when the mark was seen, by pod name
}

func newCluster(dir string) (*cluster, error) {
	server, err := apiserver.Start(isolated.BinDir(), dir, apiserver.WithoutControllers)
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir, server: server, store: record.Store{Dir: "/run/bench"}, marked: map[string]time.Time{}}
	if err := c.setUp(); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) setUp() (err error) {
	if c.client, err = kubernetes.NewForConfig(c.server.Admin()); err != nil {
		return err
	}
	ctx := context.Background()
	for _, name := range []string{namespace, account} {
		if _, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
			metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if _, err := c.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}},
		metav1.CreateOptions{}); err != nil {
		return err
	}
	for _, sub := range []string{"bin", "net.d"} {
		if err := os.Mkdir(c.path(sub), 0o755); err != nil {
			return err
		}
	}
	primary := []byte(`{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}`)
	if err := os.WriteFile(c.path("net.d/10-net.conflist"), primary, 0o644); err != nil {
		return err
	}
	// The agent checks that the network's plugin exists in bin. Nothing runs it.
	if err := os.WriteFile(c.path("bin/ptp"), nil, 0o755); err != nil {
		return err
	}
	if err := c.server.Authorize(ctx, filepath.Join(build.Root(), "agent", "rbac.yaml"), account,
		c.path("kubeconfig")); err != nil {
		return err
	}
	return c.observe()
}

// entry returns the plugin's entry.
func (c *cluster) entry() map[string]any {
	entry := map[string]any{
		"type": "istio-pod-network", "agentSocket": filepath.Join(c.store.Dir, "agent.sock"), "stateDir": c.store.Dir,
		"capabilities": map[string]bool{"io.kubernetes.cri.pod-annotations": true},
	}
	if c.selection != "" {
		entry["selection"] = c.selection
	}
	return entry
}

func (c *cluster) stop() {
	c.stopAgent()
	if c.observer != nil {
		c.observer()
	}
	c.server.Stop()
}

// startAgent starts the agent of a node with default flags, as the kubelet would, and waits until it is ready.
func (c *cluster) startAgent(node string) error {
	entry, err := json.Marshal(c.entry())
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("entry.json"), entry, 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(c.path("agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c.agent = exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-agent"),
		"--node-name="+node, "--kubeconfig="+c.path("kubeconfig"), "--network-config="+c.path("entry.json"),
		"--bin-dir="+c.path("bin"), "--conf-dir="+c.path("net.d"), "--listen="+listen)
	c.agent.Stdout, c.agent.Stderr = log, log
	if err := c.agent.Start(); err != nil {
		return err
	}
	var missing []byte
	err = within(time.Minute, "the agent is ready", func() bool {
		response, err := http.Get("http://" + listen + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = response.Body.Close() }()
		missing, _ = io.ReadAll(response.Body)
		return response.StatusCode == http.StatusOK
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, missing)
	}
	return nil
}

func (c *cluster) stopAgent() {
	if c.agent != nil {
		_ = c.agent.Process.Signal(syscall.SIGTERM)
		_ = c.agent.Wait()
		c.agent = nil
	}
}

// agentLog returns the end of the agent's log.
func (c *cluster) agentLog() string {
	data, _ := os.ReadFile(c.path("agent.log"))
	return string(data[max(0, len(data)-2000):])
}

// memory returns the agent's resident memory and its peak, in MiB, and the processor time that it has used so far.
func (c *cluster) memory() (resident, peak float64, used time.Duration, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.agent.Process.Pid))
	if err != nil {
		return 0, 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			resident = kib / 1024
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kib); n == 1 {
			peak = kib / 1024
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.agent.Process.Pid))
	if err != nil {
		return 0, 0, 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var user, system int64 // in ticks of 10 ms, proc(5)
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, 0, 0, err
	}
	return resident, peak, time.Duration(user+system) * 10 * time.Millisecond, nil
}

// observe starts a watch that records when each mark becomes visible.
func (c *cluster) observe() error {
	ctx, cancel := context.WithCancel(context.Background())
	c.observer = cancel
	pods := cache.NewListWatchFromClient(c.client.CoreV1().RESTClient(), "pods", namespace, fields.Everything())
	informer := cache.NewSharedInformer(pods, &corev1.Pod{}, 0)
	note := func(object any) {
		pod := object.(*corev1.Pod)
		if pod.Annotations[annotation.Status] != annotation.Initialized {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, known := c.marked[pod.Name]; !known {
			c.marked[pod.Name] = time.Now()
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: note,
		UpdateFunc: func(_, object any) { note(object) }})
	go informer.RunWithContext(ctx)
	return err
}

// seen returns when the pod's mark was seen.
func (c *cluster) seen(pod string) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, seen := c.marked[pod]
	return at, seen
}

// create creates pods on a node, many at the same time.
func (c *cluster) create(node string, count int) ([]*corev1.Pod, error) {
	pods, failures := make([]*corev1.Pod, count), make([]error, count)
	var all sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range count {
		c.pods++
		pod := sandbox.Injected(namespace, fmt.Sprintf("cart-%d", c.pods), node)
		slots <- struct{}{}
		all.Go(func() {
			pods[i], failures[i] = c.client.CoreV1().Pods(namespace).Create(context.Background(), pod, metav1.CreateOptions{})
			<-slots
		})
		if i > 0 && i%1000 == 0 {
			progress("%d of %d pods made", i, count)
		}
	}
	all.Wait()
	return pods, errors.Join(failures...)
}

// createNamespaces creates typical namespaces: a few labels, and an annotation of another program.
func (c *cluster) createNamespaces(count int) error {
	failures := make([]error, count)
	var all sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range count {
		name := fmt.Sprint("team-", i)
		slots <- struct{}{}
		all.Go(func() {
			_, failures[i] = c.client.CoreV1().Namespaces().Create(context.Background(), &corev1.Namespace{
				ObjectMeta: metav1.ObjectMeta{Name: name,
					Labels:      map[string]string{"istio-injection": "enabled", "pod-security.kubernetes.io/enforce": "restricted"},
					Annotations: map[string]string{"example.com/owner": name + "@example.com"}},
			}, metav1.CreateOptions{})
			<-slots
		})
	}
	all.Wait()
	return errors.Join(failures...)
}

// createLargest creates pods of the largest size on a node. The observer does not watch them.
func (c *cluster) createLargest(node string, count int) error {
	config := c.server.Admin()
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	failures := make([]error, count)
	var all sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range count {
		slots <- struct{}{}
		all.Go(func() {
			pod := sandbox.Injected(account, fmt.Sprint("large-", i), node)
			number := i
			if i%4 == 1 && i%16 != 1 { // many short texts cost the API server the most, and the agent no more than others
				number = 0
			}
			sandbox.Enlarge(pod, number)
			_, failures[i] = client.CoreV1().Pods(account).Create(context.Background(), pod, metav1.CreateOptions{})
			<-slots
		})
	}
	all.Wait()
	return errors.Join(failures...)
}

// delete deletes a pod without a grace period.
func (c *cluster) delete(pod string) error {
	now := int64(0)
	return c.client.CoreV1().Pods(namespace).Delete(context.Background(), pod,
		metav1.DeleteOptions{GracePeriodSeconds: &now})
}

// within waits until holds returns true. After limit it returns an error.
func within(limit time.Duration, what string, holds func() bool) error {
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("within %v never: %s", limit, what)
		}
	}
	return nil
}
