package linear

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/install/conflist"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/excerpt"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// The two lengths of every text, in bytes. Sorting is allowed, so the work may grow a little faster than the text.
// Quadratic work would grow 64 times.
const (
	small  = 8 << 10
	large  = 8 * small
	growth = 12
)

// Environment variables for a copy of this test that is built with coverage counters.
const (
	envCase = "LINEAR_CASE"
	envSize = "LINEAR_SIZE"
)

// work is done with a text of the given size.
type work func(size int)

const (
	name = `"cniVersion": "1.0.0", "name": "n", `
	ptp  = `{"type": "ptp"}`
	ours = entry.DefaultText
)

// repeated returns a list of items with that length.
func repeated(item string, size int) string {
	return strings.TrimSuffix(strings.Repeat(item+",", size/(len(item)+1)), ",")
}

func blank(size int) string { return strings.Repeat(" ", size) }

// onConf calls all functions for a network configuration.
func onConf(text func(size int) string) work {
	return func(size int) {
		existing := []byte(text(size))
		spliced, err := conflist.Splice(existing, []byte(ours))
		must(err)
		for _, undo := range []func([]byte) ([]byte, error){conflist.Unsplice, conflist.Without} {
			for _, data := range [][]byte{existing, spliced} {
				_, err := undo(data)
				must(err)
			}
		}
	}
}

// onEntry parses the plugin's entry.
func onEntry(text func(size int) string) work {
	return func(size int) {
		e, err := entry.Parse([]byte(`{"type": "` + entry.Type + `", ` + text(size) + `}`))
		must(err)
		_, err = e.With(map[string]any{"name": "n"})
		must(err)
		conflist.Equal(conflist.Standalone(e.Text()), e.Text())
	}
}

// onPod decides about a pod with that value of an annotation, and renders its rules.
func onPod(key string, value func(i int) string) work {
	return func(size int) {
		var list strings.Builder
		for i := 0; list.Len() < size; i++ {
			list.WriteString(value(i) + ",")
		}
		decide(redirect.Pod{Annotations: map[string]string{key: strings.TrimSuffix(list.String(), ",")}})
	}
}

func decide(pod redirect.Pod) {
	pod.Namespace, pod.Name, pod.Complete = "shop", "cart", true
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[annotation.SidecarStatus] = "{}"
	pod.Containers = append(pod.Containers, redirect.Container{Name: redirect.ProxyContainer})
	decision, err := redirect.Decide(pod, redirect.DefaultPolicy())
	must(err)
	_ = decision.Spec.RuleSet().String()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// cases are texts that others may make long.
var cases = map[string]work{
	"white space before a plugin": onConf(func(size int) string {
		return "{" + name + "\n" + blank(4) + `"plugins": [` + blank(size) + ptp + "]}"
	}),
	"white space in lines": onConf(func(size int) string {
		return "{" + name + `"plugins": [` + "\n" + blank(size) + "{\n" + blank(size) + `"type": "ptp"}]}`
	}),
	"white space before a key": onConf(func(size int) string {
		return "{\n" + blank(size) + name + `"plugins": [` + ptp + "]}"
	}),
	"white space around a .conf": onConf(func(size int) string {
		return blank(size) + "{" + name + blank(size) + `"type": "ptp"}` + blank(size)
	}),
	"many plugins": onConf(func(size int) string { return "{" + name + `"plugins": [` + repeated(ptp, size) + "]}" }),
	"many entries of ours": onConf(func(size int) string {
		return "{" + name + `"plugins": [` + ptp + "," + repeated(`{"type": "`+entry.Type+`"}`, size) + "]}"
	}),
	"many entries of ours before": onConf(func(size int) string {
		return "{" + name + `"plugins": [` + repeated(`{"type": "`+entry.Type+`"}`, size) + "," + ptp + "]}"
	}),
	"many keys": onConf(func(size int) string {
		return "{" + name + repeated(`"k": 1`, size) + `, "plugins": [` + ptp + "]}"
	}),
	"escapes": onConf(func(size int) string {
		return "{" + name + `"k": "` + strings.Repeat(`\"`, size/2) + `", "type": "ptp"}`
	}),
	"keys of our entry": onEntry(func(size int) string { return repeated(`"k": 1`, size) }),
	"namespaces": onEntry(func(size int) string {
		return `"excludeNamespaces": [` + repeated(`"kube-*"`, size) + "]"
	}),
	"ports of our entry": onEntry(func(size int) string {
		return `"redirect": {"excludeOutboundPorts": "` + repeated("80", size) + `"}`
	}),
	"ports":    onPod(annotation.ExcludeOutboundPorts, func(i int) string { return strconv.Itoa(i % 60000) }),
	"in ports": onPod(annotation.IncludeInboundPorts, func(i int) string { return strconv.Itoa(i % 60000) }),
	"prefixes": onPod(annotation.ExcludeOutboundIPRanges, func(i int) string {
		return fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)
	}),
	"inside": onPod(annotation.IncludeOutboundIPRanges, func(i int) string {
		return fmt.Sprintf("10.0.0.%d/%d", i&255, i%33)
	}),
	"interfaces": onPod(annotation.ExcludeInterfaces, func(i int) string { return fmt.Sprint("eth", i) }),
	"containers": func(size int) {
		containers := make([]redirect.Container, size/8)
		decide(redirect.Pod{Containers: containers, InitContainers: containers})
	},
	"excerpts": func(size int) {
		for _, text := range []string{blank(size), strings.Repeat("x", size), strings.Repeat("\x80", size)} {
			_, _, _ = excerpt.Quote(text), excerpt.Head(text, size/2), excerpt.Ends(text, size/4, size/4)
		}
	},
}

// TestLinear runs every case with two lengths, in a copy of this test that counts how often each statement of this
// module runs, and compares the counts with the lengths. Statements of the standard library are not counted, so neither
// is copying; allocated bytes are.
func TestLinear(t *testing.T) {
	if name := os.Getenv(envCase); name != "" {
		measure(t, name)
		return
	}
	program := filepath.Join(t.TempDir(), "counting.test")
	build := exec.Command("go", "test", "-c", "-covermode=count", "-coverpkg=github.com/istio-pod-network/controller/...",
		"-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name := range cases {
		few, many := count(t, program, name, small), count(t, program, name, large)
		t.Logf("%s: %v, then %v", name, few, many)
		if many.statements > growth*few.statements {
			t.Errorf("%s: %d bytes take %d statements, %d bytes %d", name, small, few.statements, large, many.statements)
		}
		if many.bytes > growth*few.bytes {
			t.Errorf("%s: %d bytes of text make %d, %d bytes %d", name, small, few.bytes, large, many.bytes)
		}
	}
}

// cost is what was counted.
type cost struct{ statements, bytes uint64 }

// allocated is the start of the line in which the copy prints how many bytes it has allocated.
const allocated = "allocated "

// measure runs one case in the copy.
func measure(t *testing.T, name string) {
	size, err := strconv.Atoi(os.Getenv(envSize))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cases[name](size)
	runtime.ReadMemStats(&after)
	fmt.Println(allocated, after.TotalAlloc-before.TotalAlloc)
}

// count runs the copy.
func count(t *testing.T, program, name string, size int) cost {
	t.Helper()
	profile := filepath.Join(t.TempDir(), "profile")
	c := exec.Command(program, "-test.run=^TestLinear$", "-test.coverprofile="+profile)
	c.Env = append(os.Environ(), envCase+"="+name, envSize+"="+strconv.Itoa(size))
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	sum := cost{statements: executed(t, profile)}
	_, text, _ := strings.Cut(string(out), allocated)
	if _, err := fmt.Sscan(text, &sum.bytes); err != nil || sum.bytes < uint64(size) || sum.statements == 0 {
		t.Fatalf("%s: nothing was counted: %v, %v: %s", name, sum, err, out)
	}
	return sum
}

// executed sums up a coverage profile: a line ends with the number of statements of a block, and how often it ran
// (https://pkg.go.dev/cmd/cover).
func executed(t *testing.T, profile string) (sum uint64) {
	t.Helper()
	file, err := os.Open(profile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || strings.Contains(fields[0], "internal/linear/") {
			continue
		}
		var statements, times uint64
		if _, err := fmt.Sscan(fields[1]+" "+fields[2], &statements, &times); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		sum += statements * times
	}
	return sum
}
