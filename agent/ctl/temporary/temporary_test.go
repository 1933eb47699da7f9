package temporary

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A sample has each kind of node before it has a second node of any kind.
func TestSample(t *testing.T) {
	var nodes []corev1.Node
	for i, kernel := range []string{"6.12", "6.12", "6.12", "5.14", "6.1"} {
		n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", i)}}
		n.Status.NodeInfo.KernelVersion = kernel
		nodes = append(nodes, n)
	}
	for count, want := range map[int]string{1: "node-0", 3: "node-0 node-3 node-4", 4: "node-0 node-1 node-3 node-4",
		9: "node-0 node-1 node-2 node-3 node-4"} {
		if got := strings.Join(sample(nodes, count), " "); got != want {
			t.Errorf("%d: %s, want %s", count, got, want)
		}
	}
}

// On a terminal there is one line with a bar, and lines that must be read stay.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := &Progress{Out: &out, Terminal: true, Nodes: 2}
	p.Step("node-a", "the peer starts")
	p.Done("node-a", "well")
	p.Warn("something is left")
	p.End()
	want := "\r[....................] 0/2 node-a: the peer starts\x1b[K\r[##########..........] 1/2 node-a: well\x1b[K" +
		"\r\x1b[Ksomething is left\n\r\x1b[K"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	out.Reset()
	p.Warn("denied\x1b[2J\u202e")
	p.Say("denied\x1b[2J\u202e")
	if strings.Contains(out.String(), "\x1b[2J") || strings.Contains(out.String(), "\u202e") {
		t.Errorf("the terminal is steered by others' words: %q", out.String())
	}
	out.Reset()
	p.Nodes = 1000
	p.Step("ip-10-0-1-23.eu-central-1.compute.internal", "a pod of the mesh and the control make their flows")
	if line := strings.TrimSuffix(strings.TrimPrefix(out.String(), "\r"), "\x1b[K"); len(line) != 79 {
		t.Errorf("a terminal of 80 columns has %q", line)
	}
	const bar = "[....................] "
	for width, want := range map[int]string{0: bar + "1/1000 node-a: 限界限界限", 40: "1/1000 node-a: 限界限界限", 60: bar +
		"1/1000 node-a: 限界限界限", 20: "1/1000 node-a: 限界", 21: "1/1000 node-a: 限界", 1: ""} {
		out.Reset()
		p.Columns = func() int { return width }
		p.Step("node-a", "限界限界限")
		if want = "\r" + want + "\x1b[K"; out.String() != want {
			t.Errorf("%d columns: %q, want %q", width, out.String(), want)
		}
	}
}
