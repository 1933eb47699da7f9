package node

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	"github.com/istio-pod-network/controller/plugin/record"
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

// However large its pods are, the agent gets ready and marks them with less memory than it has, whether the API server
// streams the list of pods or sends it whole; and pods that are over cost nothing. So it stays when thousands of
// connections are held open at its port.
func TestLargestPods(t *testing.T) {
	const pods, over, recorded = 60, 10, 8 // a mark of so large a pod costs the API server a second
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
	var records []record.Record
	for _, pod := range made[:recorded] {
		records = append(records, r.put(recordOf(pod)))
	}
	for _, list := range []string{"streamed", "whole"} {
		t.Run(list, func(t *testing.T) {
			t.Setenv("KUBE_FEATURE_WatchListClient", fmt.Sprint(list == "streamed")) // client-go's own
			r := *r
			r.TB = t
			r.startAgent("--log-level=info")
			r.ready()
			for i, record := range records {
				r.marked(fmt.Sprint("large-", i), record)
			}
			if peak := r.peak(); peak > memoryLimit {
				t.Errorf("the agent has had %.1f MiB, and the chart gives it %d", peak, memoryLimit)
			} else {
				t.Logf("peak %.1f MiB", peak)
			}
			r.flooded()
		})
	}
}

// flooded holds connections at the agent's port, asks for its health beside them, and looks at its memory again.
func (r *rig) flooded() {
	r.Helper()
	const held = 6000
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range held {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%200))}}
		c, err := d.Dial("tcp", "127.0.0.1:15088")
		must(r, err)
		conns = append(conns, c)
		_, _ = fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	for range 20 {
		if status, body := r.get("/healthz"); status != http.StatusOK {
			r.Errorf("beside %d connections the kubelet's probe gets %d %s", held, status, body)
		}
	}
	if peak := r.peak(); peak > memoryLimit {
		r.Errorf("with %d connections the agent has had %.1f MiB, and the chart gives it %d", held, peak, memoryLimit)
	} else {
		r.Logf("peak with %d connections %.1f MiB", held, peak)
	}
}
