package check

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mostSkew is the largest tolerated difference of clocks: tokens and certificates are valid from a moment before their
// issue.
const mostSkew = 30 * time.Second

// apart returns how far a clock is ahead or behind, "" if that is tolerated.
func apart(ahead time.Duration) string {
	if ahead.Abs() <= mostSkew {
		return ""
	}
	long := ahead.Abs().Round(time.Second)
	if long > time.Hour/2 {
		long = long.Round(time.Minute)
	}
	if ahead < 0 {
		return fmt.Sprintf("%s behind", long)
	}
	return fmt.Sprintf("%s ahead of", long)
}

// setClock says what to do about a clock.
const setClock = "set it by NTP: timedatectl on the node says whether that is on; tokens and certificates of the " +
	"mesh are refused where they are not valid yet"

// serverClock compares the API server's clock with this machine's.
func (c *Check) serverClock(from Source) {
	clock, known := from.Clock()
	if !known {
		c.add(Item{Check: "clock", Verdict: NotLookedAt, What: "the API server's clock: its answers have no date"})
		return
	}
	if by := apart(clock.Ahead()); by != "" {
		c.warn("clock", "the API server's clock is "+by+" the one of this computer", "see which of the two is wrong, and "+
			"set it by NTP: it gives tokens and certificates the time from which they are valid")
		return
	}
	c.well("clock", "the clocks of the API server and of this computer agree")
}

// kubeletClocks compares the nodes' clocks with the API server's, before there are agents to ask.
func (c *Check) kubeletClocks(nodes []corev1.Node) {
	known, off := 0, 0
	for _, n := range nodes {
		clock, told := kubeletClock(n)
		if !told {
			continue
		}
		known++
		if by := apart(clock.Ahead()); by != "" {
			off++
			c.add(Item{Check: "clock", Node: n.Name, Verdict: Warning, What: "its clock is " + by + " the API server's",
				Next: setClock})
		}
	}
	switch {
	case known == 0 && len(nodes) > 0:
		c.add(Item{Check: "clock", Verdict: NotLookedAt, What: "the nodes' clocks: nothing says when the API server has " +
			"had their heartbeats"})
	case known > 0 && off == 0:
		c.well("clock", "the clocks of %s and of the API server agree", counted(known))
	}
}

// kubeletClock computes a node's clock from its last heartbeat. The heartbeat has the kubelet's time, and the API
// server has stored by its own clock when it was written. Both have whole seconds. A new node may have no heartbeat by
// the kubelet yet, only the times from the creation of its object.
func kubeletClock(n corev1.Node) (clock cluster.Clock, told bool) {
	for _, condition := range n.Status.Conditions {
		if condition.Type != corev1.NodeReady || condition.LastHeartbeatTime.IsZero() {
			continue
		}
		written, fresh := n.CreationTimestamp.Time, len(n.ManagedFields) > 0 && !n.CreationTimestamp.IsZero()
		for _, entry := range n.ManagedFields {
			fresh = fresh && entry.Time != nil && entry.Time.Sub(written) < longestBeat
			if entry.Subresource == "status" && entry.Time != nil && beats(entry.FieldsV1) {
				written := entry.Time.Time
				return cluster.ClockOf(condition.LastHeartbeatTime.Time, time.Second, written, written.Add(time.Second)), true
			}
		}
		if fresh {
			return cluster.ClockOf(condition.LastHeartbeatTime.Time, time.Second, written, written.Add(time.Second)), true
		}
	}
	return clock, false
}

// longestBeat is how long a kubelet may leave a heartbeat unchanged. Source: KubeletConfiguration,
// nodeStatusReportFrequency.
const longestBeat = 5 * time.Minute

// beats reports whether managed fields include the heartbeat.
func beats(fields *metav1.FieldsV1) bool {
	var its struct {
		Status struct {
			Conditions map[string]map[string]any `json:"f:conditions"`
		} `json:"f:status"`
	}
	if fields == nil || json.Unmarshal(fields.GetRawBytes(), &its) != nil {
		return false
	}
	_, has := its.Status.Conditions[`k:{"type":"Ready"}`]["f:lastHeartbeatTime"]
	return has
}

// clocks compares the nodes' clocks with this machine's, and so with each other.
func (c *Check) clocks(items []status.Node) {
	known, off := 0, 0
	for _, n := range items {
		if n.Agent == nil || n.Agent.Time.IsZero() {
			continue
		}
		known++
		if by := apart(n.Clock.Ahead()); by != "" {
			off++
			c.add(Item{Check: "clock", Node: n.Name, Verdict: Warning, What: "its clock is " + by + " the one of this computer",
				Next: setClock})
		}
	}
	if known > 0 && off == 0 {
		c.well("clock", "the clocks of %s and of this computer agree", counted(known))
	}
}
