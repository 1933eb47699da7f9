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

// memoryLimit is the agent's in the chart, in MiB.
const memoryLimit = 128

// peak is the most memory that the agent has had, in MiB, as the kernel counts it.
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

// withinMemory fails the test if the agent has had more memory than it has.
func (r *rig) withinMemory(when string) {
	r.Helper()
	if peak := r.peak(); peak > memoryLimit {
		r.Errorf("%s the agent has had %.1f MiB, and the chart gives it %d", when, peak, memoryLimit)
	} else {
		r.Logf("peak %s %.1f MiB", when, peak)
	}
}

// However large its pods are, the agent gets ready and marks them with less memory than it has, and pods that are over
// cost nothing. So it stays when thousands of connections are held open at its port. How many there are is the matter
// of TestManyLargestPods.
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
	for _, pod := range made[:recorded] { // one at a time: a mark of so large a pod costs the API server a second
		r.marked(pod.Name, r.put(recordOf(pod)))
	}
	r.withinMemory("with those pods")
	r.flooded()
}
