package wait

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/istio-pod-network/controller/internal/files"
)

// annotations are the pod's, as far as the file shows them.
type annotations map[string]string

// maxFile bounds the file in bytes. Kubernetes allows a pod 256 KiB of annotations.
const maxFile = 1 << 20

// parseAnnotations reads what the downward API writes: key="value" per line, the value quoted as Go does. What is no
// such line is skipped, since a file that is not the kubelet's may be seen half written; a key that is there twice with
// different values says nothing.
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

// readAnnotations reads the first of the files that exists.
func readAnnotations(paths []string) (annotations, error) {
	// The kubelet swaps the directory behind the file and removes the old one: whoever has followed the old link by then
	// finds nothing, and the new file when looking again.
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
