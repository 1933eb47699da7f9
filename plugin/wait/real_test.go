package wait

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

const (
	proxy   = 1337
	someone = 1000660001 // a user ID in OpenShift's range
)

// pod returns a lab without a sidecar: the state of a pod while its init containers run.
func pod(t *testing.T, options testnet.Options) (*testnet.Lab, *netfilter.NetNS) {
	t.Helper()
	lab, err := testnet.New(options)
	await.Must(t, err)
	t.Cleanup(func() { _ = lab.Close() })
	n, err := netfilter.Open(lab.Path)
	await.Must(t, err)
	t.Cleanup(n.Close)
	return lab, n
}

// identity returns the identity of an open network namespace.
func identity(t *testing.T, n *netfilter.NetNS) (id record.NetNS) {
	t.Helper()
	await.Must(t, n.Within(func() (err error) { id, err = record.CurrentNetNS(); return err }))
	return id
}

// rulesOf returns the rules of settings such as {"inboundPort": 15106}.
func rulesOf(t *testing.T, settings string) redirect.RuleSet {
	t.Helper()
	spec, err := redirect.ParseSpec([]byte(settings))
	await.Must(t, err)
	return spec.RuleSet()
}

func apply(t *testing.T, n *netfilter.NetNS, backend netfilter.Backend, rules redirect.RuleSet) {
	t.Helper()
	_, err := n.Apply(backend, rules)
	await.Must(t, err)
}

// TestSigterm ends the built program by SIGTERM while it waits.
func TestSigterm(t *testing.T) {
	t.Parallel()
	lab, _ := pod(t, testnet.Options{})
	c, finish := commandIn(t, lab.Path, someone)
	stderr := started(t, c, "annotation: ")
	await.Must(t, c.Process.Signal(syscall.SIGTERM)) // each wrapper has replaced itself by exec
	_ = c.Wait()
	got := finish()
	got.stderr = stderr()
	got.expect(t, exitTerminated, "SIGTERM", "annotation", "no such file")
}

// started starts a command and waits for a line of progress that contains words. stderr returns what was read so far.
func started(t *testing.T, c *exec.Cmd, words string) (stderr func() string) {
	t.Helper()
	progress, err := os.CreateTemp(t.TempDir(), "")
	await.Must(t, err)
	t.Cleanup(func() { progress.Close() })
	c.Stderr = progress
	await.Must(t, c.Start())
	stderr = func() string {
		data, err := os.ReadFile(progress.Name())
		await.Must(t, err)
		return string(data)
	}
	await.Eventually(t, time.Minute, "it waits for "+words, func() bool {
		return strings.Contains(stderr(), "waiting for") && strings.Contains(stderr(), words)
	})
	return stderr
}

// TestReadOnly checks that the other tests run on a read-only root and without privileges.
func TestReadOnly(t *testing.T) {
	lab, _ := pod(t, testnet.Options{})
	// The last --termination-log counts. /etc is on the root file system.
	c, finish := commandIn(t, lab.Path, someone, "--mode=annotation", "--file=/nonexistent",
		"--termination-log=/etc/wait-test-log")
	_ = c.Run()
	if got := finish(); got.code != exitNotReady || !strings.Contains(got.stderr, "read-only file system") &&
		!strings.Contains(got.stderr, "permission denied") {
		t.Error(got)
	}
	c, _ = commandIn(t, lab.Path, someone)
	i := slices.Index(c.Args, built)
	c.Args = append(c.Args[:i], "sh", "-c",
		"grep -E '^(Uid|Cap|NoNewPrivs)' /proc/self/status; touch "+os.TempDir()+"/wait-test-x")
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	_ = c.Run()
	for _, want := range []string{"1000660001\t1000660001", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000",
		"NoNewPrivs:\t1", "Read-only file system"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want %q in %s", want, out.String())
		}
	}
}

// TestStatic checks that the program runs in an image from scratch, and prints its version.
func TestStatic(t *testing.T) {
	program, err := elf.Open(built)
	await.Must(t, err)
	defer program.Close()
	if program.Section(".interp") != nil || program.Section(".dynamic") != nil {
		t.Error("not static")
	}
	if out, err := exec.Command(built, "--version").Output(); err != nil ||
		string(out) != "istio-pod-network-wait v1.2.3-test\n" {
		t.Errorf("version: %q, %v", out, err)
	}
}
