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

// mostSkew is how far clocks may be apart: tokens and certificates are made to be valid from a moment before.
const mostSkew = 30 * time.Second

// apart says by how much a clock is ahead of or behind another, "" where they agree.
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

// setClock is what to do about one.
const setClock = "set it by NTP: timedatectl on the node says whether that is on; tokens and certificates of the " +
	"mesh are refused where they are not valid yet"

// serverClock compares the API server's clock with the one here.
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

// kubeletClock reads it off a node's last heartbeat, which has the kubelet's time: the API server has noted by its own
// clock when that was written. Both have seconds. Of a node that has just come nobody may have written one since the
// kubelet made its object.
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

// longestBeat is how long a kubelet leaves a heartbeat as it is. Source: KubeletConfiguration,
// nodeStatusReportFrequency.
const longestBeat = 5 * time.Minute

// beats reports whether fields that somebody manages include the heartbeat.
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

// clocks compares the nodes' clocks with the one here, and so with each other.
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
