package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// marks starts the agent on a node with pods, adds pods one after the other with the plugin, and then writes a burst of
// records.
func (m measurement) marks(c *cluster) ([]row, error) {
	earlier, err := c.create(nodeName, m.pods-m.n)
	if err != nil {
		return nil, err
	}
	if err := c.leave(earlier); err != nil {
		return nil, err
	}
	if err := c.startAgent(nodeName); err != nil {
		return nil, err
	}
	if err := c.all(earlier); err != nil {
		return nil, err
	}
	pods, err := c.create(nodeName, m.n)
	if err != nil {
		return nil, err
	}
	var adds, latencies []time.Duration
	for i, pod := range pods {
		took, recorded, err := c.add(pod, 100_000+i)
		if err != nil {
			return nil, err
		}
		if err := c.all(pods[i : i+1]); err != nil {
			return nil, err
		}
		at, _ := c.seen(pod.Name)
		adds, latencies = append(adds, took), append(latencies, at.Sub(recorded))
	}
	burst, err := c.create(nodeName, m.burst)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := c.leave(burst); err != nil {
		return nil, err
	}
	if err := c.all(burst); err != nil {
		return nil, err
	}
	last := start
	for _, pod := range burst {
		if at, _ := c.seen(pod.Name); at.After(last) {
			last = at
		}
	}
	rows := []row{
		{"ADD by the plugin, wall, median", milliseconds(median(adds)), 0, "ms", 0},
		{"record -> mark visible to a watcher, median", milliseconds(median(latencies)), 50, "ms", machines},
		{"record -> mark visible to a watcher, worst", milliseconds(slices.Max(latencies)), 0, "ms", 0},
		{fmt.Sprintf("%d records at once, the last mark", m.burst), milliseconds(last.Sub(start)), 5000, "ms", machines},
	}
	return rows, c.remove(burst)
}

// memory measures the idle agent's memory and requests.
func (m measurement) memory(c *cluster) ([]row, error) {
	requests, err := c.requests()
	if err != nil {
		return nil, err
	}
	rows := []row{
		{"API writes per sandbox", float64(requests["patch"]) / float64(m.pods+m.burst), 1, "", exact},
		{"other API requests, all of " + fmt.Sprint(m.pods+m.burst) + " pods together", float64(requests["other"]), 0, "", 0},
	}
	more, err := m.idleAgent(c, fmt.Sprintf("%d pods on the node", m.pods))
	return append(rows, more...), err
}

// besideMany repeats that in a cluster with many pods on other nodes.
func (m measurement) besideMany(c *cluster) ([]row, error) {
	c.stopAgent()
	progress("%d pods in the cluster", m.cluster)
	if _, err := c.create("another-node", m.cluster-m.pods); err != nil {
		return nil, err
	}
	if err := c.startAgent(nodeName); err != nil {
		return nil, err
	}
	time.Sleep(5 * time.Second) // until the garbage of the start is collected
	_, peak, _, err := c.memory()
	if err != nil {
		return nil, err
	}
	where := fmt.Sprintf("%d pods in the cluster, %d of them on the node", m.cluster, m.pods)
	rows := []row{{"peak memory while starting, " + where, peak, 60, "MiB", clear}}
	more, err := m.idleAgent(c, where)
	return append(rows, more...), err
}

// manyNamespaces repeats that with selection annotated, which makes the agent watch all namespaces.
func (m measurement) manyNamespaces(c *cluster) ([]row, error) {
	c.stopAgent()
	progress("%d namespaces in the cluster", m.spaces)
	if err := c.createNamespaces(m.spaces); err != nil {
		return nil, err
	}
	c.selection = redirect.SelectAnnotated
	defer func() { c.selection = "" }()
	if err := c.startAgent(nodeName); err != nil {
		return nil, err
	}
	return m.idleAgent(c, fmt.Sprintf("%d pods on the node, %d namespaces, selection: annotated", m.pods, m.spaces))
}

// limit is the agent's memory limit in the chart, in MiB.
const limit = 128

// largestPods starts the agent on another node, where all pods are as large as the API server allows.
func (m measurement) largestPods(c *cluster) ([]row, error) {
	const node = "node-of-the-largest"
	c.stopAgent()
	progress("%d pods as large as they may be", m.largest)
	if err := c.createLargest(node, m.largest); err != nil {
		return nil, err
	}
	c.store = record.Store{Dir: "/run/bench-largest"}
	if err := c.startAgent(node); err != nil {
		return nil, err
	}
	_, peak, _, err := c.memory()
	if err != nil {
		return nil, err
	}
	return []row{{fmt.Sprintf("peak memory, %d pods of the largest size", m.largest), peak, limit, "MiB", exact}}, nil
}

func (m measurement) idleAgent(c *cluster, where string) ([]row, error) {
	_, _, before, err := c.memory()
	if err != nil {
		return nil, err
	}
	progress("idle for %v", m.idle)
	for left := m.idle; left > 0; left -= time.Minute {
		time.Sleep(min(left, time.Minute))
	}
	resident, _, after, err := c.memory()
	if err != nil {
		return nil, err
	}
	return []row{
		{fmt.Sprintf("resident memory after %v idle, %s", m.idle, where), resident, 40, "MiB", exact},
		{"processor time while idle", 100 * (after - before).Seconds() / m.idle.Seconds(), 0, "% of one", 0},
	}, nil
}

// leave writes the records of pods as fast as possible.
func (c *cluster) leave(pods []*corev1.Pod) error {
	for _, pod := range pods {
		c.sandboxes++
		if err := c.store.Put(sandbox.Record(pod, c.sandboxes)); err != nil {
			return err
		}
	}
	return nil
}

// all waits until every pod's mark has been seen.
func (c *cluster) all(pods []*corev1.Pod) error {
	unseen := slices.Clone(pods)
	err := within(time.Minute, "all pods are marked", func() bool {
		unseen = slices.DeleteFunc(unseen, func(pod *corev1.Pod) bool { _, seen := c.seen(pod.Name); return seen })
		return len(unseen) == 0
	})
	if err != nil {
		return fmt.Errorf("%w: %d of %d are not, the first is %s", err, len(unseen), len(pods), unseen[0].Name)
	}
	return nil
}

// add calls the plugin for a pod in a new network namespace. It returns how long the call took and when the record was
// made.
func (c *cluster) add(pod *corev1.Pod, number int) (took time.Duration, recorded time.Time, err error) {
	netns := c.path(fmt.Sprint("netns-", number))
	if err := isolated.NewNetNS(netns); err != nil {
		return 0, recorded, err
	}
	defer func() { _ = isolated.RemoveNetNS(netns) }()
	podSandbox := sandbox.Sandbox{Pod: pod, ID: sandbox.ID(number), NetNS: netns, Annotated: true}
	cmd, err := podSandbox.Command("ADD", c.entry())
	if err != nil {
		return 0, recorded, err
	}
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took = time.Since(start)
	if err != nil {
		return 0, recorded, fmt.Errorf("ADD: %w: %s", err, out)
	}
	r, err := c.store.Get(podSandbox.ID, "eth0")
	return took, r.Time, err
}

// remove deletes the records of the burst and then its pods, so that the node has as many pods as before. On a node,
// too, DEL comes before the pod is gone. Otherwise the agent would read every pod whose record is left.
func (c *cluster) remove(pods []*corev1.Pod) error {
	records, unreadable := c.store.List()
	if err := errors.Join(unreadable...); err != nil {
		return err
	}
	burst := map[string]bool{}
	for _, pod := range pods {
		burst[pod.Name] = true
	}
	for _, r := range records {
		if burst[r.Name] {
			if err := c.store.Delete(r.ContainerID, r.IfName); err != nil {
				return err
			}
		}
	}
	for _, pod := range pods {
		if err := c.delete(pod.Name); err != nil {
			return err
		}
	}
	return nil
}

// requests counts the agent's requests to the API server.
func (c *cluster) requests() (map[string]int, error) {
	all, err := c.server.Audit(account)
	counts, kinds := map[string]int{}, map[string]int{}
	for _, r := range all {
		if r.Verb == "patch" && r.Object.Resource == "pods" {
			counts["patch"]++
		} else {
			counts["other"]++
			kinds[r.Verb+" "+r.Object.Resource]++
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		progress("other requests: %d x %s", kinds[kind], kind)
	}
	return counts, err
}

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
