package wait

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/istio-pod-network/controller/internal/files"
)

// annotations are the pod's annotations, as read from the downward API file.
type annotations map[string]string

// maxFile limits the file in bytes. Kubernetes limits a pod's annotations to 256 KiB in total.
const maxFile = 1 << 20

// parseAnnotations parses the file of the downward API: one key="value" per line, the value quoted as strconv.Quote
// does. It skips other lines, because a file that the kubelet has not written may be seen half-written. It drops a key
// that appears twice with different values.
func parseAnnotations(data string) annotations {
	found, twice := annotations{}, map[string]bool{}
	for line := range strings.SplitSeq(data, "\n") {
		key, quoted, _ := strings.Cut(line, "=")
		if key == "" || !strings.HasPrefix(quoted, `"`) {
			continue
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			continue
		}
		if old, present := found[key]; present && old != value {
			twice[key] = true
		}
		found[key] = value
	}
	for key := range twice {
		delete(found, key)
	}
	return found
}

// readAnnotations reads the first file that exists.
func readAnnotations(paths []string) (annotations, error) {
	// The kubelet replaces the directory behind the file and removes the old one. An open through the old link then
	// fails, and the next one finds the new file.
	for range 3 {
		for _, path := range paths {
			data, err := files.Read(path, maxFile)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("reading the pod's annotations: %w", err)
			}
			return parseAnnotations(string(data)), nil
		}
	}
	return nil, fmt.Errorf("reading the pod's annotations: %s: no such file; mount them there from a downward API volume",
		strings.Join(paths, " and "))
}
