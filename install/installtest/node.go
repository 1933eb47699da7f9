package installtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
)

// Plugin writes a program that stands in for our plugin: it supports every CNI version and accepts every entry. It
// first runs the lines of shell in more.
func Plugin(t testing.TB, path, more string) {
	t.Helper()
	await.Must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+more+`
[ "$CNI_COMMAND" != VERSION ] ||
	echo '{"supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}'
`), 0o755))
}

// Programs writes files that stand in for the plugins of others, so that dir looks like the runtime's directory of
// plugins.
func Programs(t testing.TB, dir string, names ...string) {
	t.Helper()
	await.Must(t, os.MkdirAll(dir, 0o755))
	for _, name := range names {
		await.Must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o755))
	}
}
