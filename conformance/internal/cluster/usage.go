package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// PodsTime returns the processor time that all containers of the node have used, including those that have ended. It is
// the kernel's counter of their common control group: cpuacct.usage in version 1, usage_usec of cpu.stat in version 2.
func (n *Node) PodsTime() (time.Duration, error) {
	hierarchies, err := controlGroups()
	if err != nil {
		return 0, err
	}
	for _, h := range hierarchies {
		dir := filepath.Join(h, group(), n.Name, "kubepods")
		if data, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage")); err == nil {
			var nanoseconds int64
			_, err := fmt.Sscan(string(data), &nanoseconds)
			return time.Duration(nanoseconds), err
		}
		data, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for line := range strings.Lines(string(data)) {
			var microseconds int64
			if _, err := fmt.Sscanf(line, "usage_usec %d", &microseconds); err == nil {
				return time.Duration(microseconds) * time.Microsecond, nil
			}
		}
	}
	return 0, fmt.Errorf("no control group of %s's pods counts processor time", n.Name)
}
