package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A first look at the whole: one pod, from record to annotation.
func TestOneMark(t *testing.T) {
	r := newRig(t)
	must(t, os.WriteFile(filepath.Join(r.dir, "net.d", "10-net.conflist"), []byte(primary), 0o644))
	r.startAgent()
	r.ready()
	pod := r.mesh("cart-0")
	rec := r.put(recordOf(pod))
	r.marked("cart-0", rec)
	if _, body := r.get("/readyz"); !strings.Contains(body, "[+] installed") {
		t.Error(body)
	}
	_ = corev1.Pod{}
}
