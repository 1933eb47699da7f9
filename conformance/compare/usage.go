package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ticks is the number of units of processor time in a second, in /proc (USER_HZ, proc_pid_stat(5)).
const ticks = 100

// since returns what was used between two moments.
func (u usage) since(before usage) usage {
	u.Runtime -= before.Runtime
	u.Pods -= before.Pods
	u.Agent = max(0, u.Agent-before.Agent) // an agent that was killed starts from zero
	return u
}

// spent returns what was used so far.
func (v *visit) spent() (u usage, err error) {
	for _, pid := range v.node.Processes("containerd") {
		_, children, err := processorTime(pid)
		if err != nil {
			return u, err
		}
		u.Runtime += children
	}
	pods, err := v.node.PodsTime()
	u.Pods = pods.Seconds()
	if v.agent == nil || err != nil {
		return u, err
	}
	for _, pid := range v.agents() {
		own, children, err := processorTime(pid)
		if err == nil {
			u.Agent += own + children
			u.Memory += resident(pid)
		}
	}
	return u, nil
}

// agents returns the processes of the way's agent on the measured node, in any network namespace.
func (v *visit) agents() (pids []int) {
	found, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, path := range found {
		exe, err := os.Readlink(path)
		if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != v.agent.program {
			continue
		}
		dir := filepath.Dir(path)
		groups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil &&
			strings.Contains(string(groups), "/"+v.node.Name+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// processorTime returns the processor time of a process, and that of its children that have ended and that it waited
// for, in seconds.
func processorTime(pid int) (own, children float64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:]) // from the third field on
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %q", pid, stat)
	}
	var times [4]float64 // utime, stime, cutime, cstime
	for i := range times {
		if times[i], err = strconv.ParseFloat(fields[11+i], 64); err != nil {
			return 0, 0, err
		}
	}
	return (times[0] + times[1]) / ticks, (times[2] + times[3]) / ticks, nil
}

// resident returns the resident memory of a process, in MiB.
func resident(pid int) float64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024
		}
	}
	return 0
}

// requests counts the requests of agent and plugin since then, and prints which they were.
func (v *visit) requests(since time.Time) (count int, err error) {
	if v.agent == nil {
		return 0, nil
	}
	all, err := v.cluster.Server.Audit(v.agent.namespace)
	kinds := map[string]int{}
	for _, r := range all {
		if r.Received.After(since) && strings.HasSuffix(r.User.Username, ":"+v.agent.account) {
			count++
			kinds[strings.TrimSpace(r.Verb+" "+strings.TrimSuffix(r.Object.Resource+"/"+r.Object.Subresource, "/"))]++
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		say("%s: %d x %s", v.progress, kinds[kind], kind)
	}
	return count, err
}
