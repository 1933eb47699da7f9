package wait

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/fdleak"
	"github.com/istio-pod-network/controller/plugin/record"
)

// built is the path of the program, built as it is released: static and stripped.
var built string

// TestMain builds the program where every user may execute it, and fails the tests if they leave file descriptors open.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wait-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	built = filepath.Join(dir, "istio-pod-network-wait")
	build := exec.Command("go", "build", "-trimpath", "-ldflags",
		"-s -w -X github.com/istio-pod-network/controller/internal/buildinfo.version=v1.2.3-test", "-o", built,
		"../istio-pod-network-wait")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, failed := build.CombinedOutput(); failed != nil {
		err = errors.Join(err, failed, errors.New(string(out)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := fdleak.Run(m)
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// volume is a downward API volume, written as the kubelet does: a new directory, and a symbolic link that is renamed.
type volume struct {
	t       testing.TB
	dir     string
	version int
}

func newVolume(t testing.TB, lines ...string) *volume {
	t.Helper()
	dir, err := os.MkdirTemp("", "wait-volume-")
	await.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	await.Must(t, os.Chmod(dir, 0o755))
	v := &volume{t: t, dir: dir}
	v.set(lines...)
	await.Must(t, os.Symlink("..data/annotations", v.file()))
	return v
}

func (v *volume) file() string { return filepath.Join(v.dir, "annotations") }

// set replaces the contents.
func (v *volume) set(lines ...string) {
	v.t.Helper()
	v.prepare(lines...)
	v.swap()
}

// prepare writes the contents that swap then shows. Like the kubelet's, they have no line feed at the end.
func (v *volume) prepare(lines ...string) {
	v.t.Helper()
	v.version++
	name := fmt.Sprintf("..%d", v.version)
	await.Must(v.t, os.Mkdir(filepath.Join(v.dir, name), 0o755))
	await.Must(v.t, os.WriteFile(filepath.Join(v.dir, name, "annotations"), []byte(strings.Join(lines, "\n")), 0o644))
	await.Must(v.t, os.Symlink(name, filepath.Join(v.dir, "..data_tmp")))
}

func (v *volume) swap() {
	v.t.Helper()
	await.Must(v.t, os.Rename(filepath.Join(v.dir, "..data_tmp"), filepath.Join(v.dir, "..data")))
	await.Must(v.t, os.RemoveAll(filepath.Join(v.dir, fmt.Sprintf("..%d", v.version-1))))
}

const (
	statusKey = "pod-network-controller.istio.io/status"
	netnsKey  = "pod-network-controller.istio.io/netns"
)

// line formats an annotation as the kubelet does.
func line(key, value string) string { return fmt.Sprintf("%s=%q", key, value) }

// marked returns the lines of the agent's mark, and of more annotations.
func marked(status string, netns record.NetNS, more ...string) []string {
	return append([]string{line("kubernetes.io/config.seen", "2025-01-01\n=\"x\""), line(statusKey, status),
		line(netnsKey, string(netns))}, more...)
}

// outcome is the result of a run of the program.
type outcome struct {
	code           int
	stdout, stderr string
	message        string // the termination message
}

func (o outcome) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s\nmessage: %s", o.code, o.stdout, o.stderr, o.message)
}

// expect fails the test unless the program ended with the code and printed each of the words. After a failure the
// termination message must have them too, within the size that the kubelet keeps.
func (o outcome) expect(t testing.TB, code int, words ...string) {
	t.Helper()
	message := o.stdout
	if code != exitReady {
		message = o.message
		if len(o.message) > maxMessage || !strings.Contains(o.stderr, strings.TrimSuffix(o.message, "…")) {
			t.Errorf("the termination message is not what was logged\n%s", o)
		}
	}
	if o.code != code {
		t.Fatalf("want exit code %d, got %s", code, o)
	}
	for _, word := range words {
		if !strings.Contains(message, word) {
			t.Errorf("want %q in %s", word, o)
		}
	}
}

// runIn runs the built program in a network namespace as the given user, without any capability, on a read-only root.
func runIn(t testing.TB, netns string, uid int, args ...string) outcome {
	t.Helper()
	c, finish := commandIn(t, netns, uid, args...)
	_ = c.Run()
	return finish()
}

// probeIn is runIn for a test that looks at what the last probe says of each family: it has to name words, and not the
// other text. On a busy machine a connection may get no processor within its time, and the probe then says nothing of
// the rules.
func probeIn(t testing.TB, netns string, uid int, words []string, not string, args ...string) (o outcome) {
	t.Helper()
	for range 20 {
		o = runIn(t, netns, uid, args...)
		lacks := func(word string) bool { return !strings.Contains(o.message, word) }
		if o.code != exitNotReady || !slices.ContainsFunc(words, lacks) && (not == "" || lacks(not)) {
			break
		}
	}
	return o
}

// commandIn is runIn for a test that starts the command itself.
func commandIn(t testing.TB, netns string, uid int, args ...string) (c *exec.Cmd, finish func() outcome) {
	t.Helper()
	// The termination log is a mount of its own, as in a container.
	log := newVolume(t)
	await.Must(t, os.WriteFile(log.dir+"/log", nil, 0o666))
	await.Must(t, os.Chmod(log.dir+"/log", 0o666))
	script := `mount --bind "$1" "$1" && mount -o remount,bind,ro / && shift && exec "$@"`
	all := []string{"--net=" + netns, "unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", log.dir,
		"setpriv", fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", uid), "--clear-groups", "--inh-caps=-all",
		"--bounding-set=-all",
		"--no-new-privs", built}
	if len(args) > 0 && args[0] == "init" {
		all, args = append(all, args[0]), args[1:]
	}
	all = append(all, "--termination-log", log.dir+"/log")
	var stdout, stderr bytes.Buffer
	c = exec.Command("nsenter", append(all, args...)...)
	c.Stdout, c.Stderr = &stdout, &stderr
	return c, func() outcome {
		message, err := os.ReadFile(log.dir + "/log")
		await.Must(t, err)
		return outcome{c.ProcessState.ExitCode(), stdout.String(), stderr.String(), string(message)}
	}
}
