package node

import (
	"bufio"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	corev1 "k8s.io/api/core/v1"
)

// memoryLimit is the agent's memory limit in the chart, in MiB.
const memoryLimit = 128

// peak returns the agent's peak memory in MiB, as the kernel counts it.
func (r *rig) peak() (mib float64) {
	r.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", r.agent.cmd.Process.Pid))
	must(r, err)
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var kib float64
		if n, _ := fmt.Sscanf(lines.Text(), "VmHWM: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	r.Fatal("the kernel does not say how much memory the agent has had")
	return 0
}

// withinMemory fails the test if the agent's peak is above its limit.
func (r *rig) withinMemory(when string) {
	r.Helper()
	if peak := r.peak(); peak > memoryLimit {
		r.Errorf("%s the agent has had %.1f MiB, and the chart gives it %d", when, peak, memoryLimit)
	} else {
		r.Logf("peak %s %.1f MiB", when, peak)
	}
}

// Whatever the size of its pods, the agent becomes ready and marks them within its memory limit, and pods that are over
// need no memory. That also holds with thousands of open connections to its port. TestManyLargestPods has many pods.
func TestLargestPods(t *testing.T) {
	const pods, over, recorded = 24, 4, 4 // one of each kind
	r := newRig(t).withPrimary()
	largest := func(name string, number int) *corev1.Pod {
		pod := r.podOf(name, meshAnnotations())
		sandbox.Enlarge(pod, number)
		return pod
	}
	var making sync.WaitGroup
	slots, made := make(chan struct{}, 4), make([]*corev1.Pod, pods)
	for i := range pods {
		slots <- struct{}{}
		making.Go(func() {
			made[i] = r.create(largest(fmt.Sprint("large-", i), i))
			<-slots
		})
	}
	for i := range over {
		slots <- struct{}{}
		making.Go(func() {
			pod := r.create(largest(fmt.Sprint("over-", i), 0))
			r.status(pod, corev1.PodStatus{Phase: corev1.PodSucceeded})
			<-slots
		})
	}
	making.Wait()
	r.startAgent("--log-level=info")
	r.ready()
	for _, pod := range made[:recorded] { // one after the other: a mark of such a pod takes the API server a second
		r.marked(pod.Name, r.put(recordOf(pod)))
	}
	r.withinMemory("with those pods")
	r.flooded()
}
