package installtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
)

// Plugin writes a program that stands for ours: it speaks every version of CNI and takes every entry. more are lines of
// shell that run before.
func Plugin(t testing.TB, path, more string) {
	t.Helper()
	await.Must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+more+`
[ "$CNI_COMMAND" != VERSION ] ||
	echo '{"supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}'
`), 0o755))
}

// Programs writes files that stand for plugins of somebody else's, so that the runtime is seen to look in dir.
func Programs(t testing.TB, dir string, names ...string) {
	t.Helper()
	await.Must(t, os.MkdirAll(dir, 0o755))
	for _, name := range names {
		await.Must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o755))
	}
}
