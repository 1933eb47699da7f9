package shapes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/await"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Capabilities of the agent's container: to change files of other users, and what the plugin needs to repair pods.
const (
	forFiles  = "-all,+chown,+dac_override,+fowner,+lease"
	forRepair = ",+dac_read_search,+net_admin,+sys_admin"
)

// contained returns a program as it runs in its container: as root with these capabilities alone, and without the
// directories of the node that are not mounted there.
func (n *node) contained(capabilities, program string, args ...string) *exec.Cmd {
	line := []string{}
	if len(n.hidden) > 0 {
		// The node's mounts propagate into the container, and none propagates back.
		const hide = `until [ "$1" = -- ]; do mount -t tmpfs hidden "$1" || exit 1; shift; done; shift; exec "$@"`
		line = append(line, "unshare", "--mount", "--propagation", "slave", "sh", "-c", hide, "sh")
		line = append(append(line, n.hidden...), "--")
	}
	line = append(line, "setpriv", "--bounding-set", capabilities, "--inh-caps", "-all",
		filepath.Join(isolated.BinDir(), program))
	line = append(line, args...)
	return exec.Command(line[0], line[1:]...)
}

// settings returns the flags that installer and agent share.
func (n *node) settings() []string {
	n.Helper()
	entry, err := json.Marshal(n.entry)
	await.Must(n, err)
	await.Must(n, os.WriteFile(n.path("entry.json"), entry, 0o600))
	return append([]string{"--source=" + n.source, "--network-config=" + n.path("entry.json"),
		"--bin-dir=" + n.seen(n.binDir), "--conf-dir=" + n.seen(n.confDir),
		"--runtime-version=" + n.runtimeVersion}, n.flags...)
}

// run runs the installer and returns its exit status and output.
func (n *node) run(command string) (int, string) {
	n.Helper()
	cmd := n.contained(forFiles, "istio-pod-network-install", append([]string{command}, n.settings()...)...)
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		n.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// process is a running program. It ends with the test at the latest.
type process struct {
	cmd  *exec.Cmd
	log  *await.Output
	done chan struct{}
}

func (n *node) start(cmd *exec.Cmd) *process {
	n.Helper()
	p := &process{cmd: cmd, log: await.NewOutput(n), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log.File, p.log.File
	await.Must(n, cmd.Start())
	go func() { _ = cmd.Wait(); close(p.done) }()
	await.Explain(n, filepath.Base(cmd.Args[len(cmd.Args)-1])+" says", p.log.String)
	n.Cleanup(func() { p.end(syscall.SIGKILL) })
	return p
}

func (p *process) end(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal)
	<-p.done
}

// watch starts the installer's watch.
func (n *node) watch() *process {
	n.Helper()
	return n.start(n.contained(forFiles, "istio-pod-network-install", append([]string{"watch"}, n.settings()...)...))
}

// join creates the node's object. From then on its pods have objects, too, and the plugin asks the agent.
func (n *node) join() {
	n.Helper()
	n.entry["agentSocket"], n.entry["agentTimeout"] = filepath.Join(n.entry["stateDir"].(string), "agent.sock"), "30s"
	n.name = fmt.Sprint("node-", n.number)
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
	_, err := client.CoreV1().Nodes().Create(context.Background(), object, metav1.CreateOptions{})
	await.Must(n, err)
}

// agent starts the node's agent with the chart's defaults.
func (n *node) agent(flags ...string) *process {
	n.Helper()
	args := append(n.settings(), "--node-name="+n.name, "--kubeconfig="+credentials, "--repair=apply",
		"--cni-cache-dir="+n.path("cache"), "--netns-dir="+n.dir, "--listen="+n.address(), "--patrol=200ms")
	return n.start(n.contained(forFiles+forRepair, "istio-pod-network-agent", append(args, flags...)...))
}

// address returns the address of the node's agent. All nodes of these tests share one network namespace.
func (n *node) address() string { return fmt.Sprint("127.0.0.1:", 16000+n.number) }

// ask returns the agent's answer, 0 if there is none.
func (n *node) ask(path string) (status int, body string) {
	response, err := http.Get("http://" + n.address() + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	data, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(data)
}

// patience limits a wait for something that has to happen. No test passes or fails because of its duration.
const patience = 3 * time.Minute

func (n *node) eventually(what string, holds func() bool) {
	n.Helper()
	await.Eventually(n, patience, what, holds)
}

// says waits until the agent's readiness is as wanted, and its line for the check has that text.
func (n *node) says(ready bool, check, want string) {
	n.Helper()
	line := regexp.MustCompile(`(?m)^\[[-+]\] ` + check + `: (.*)$`)
	sign, last := map[bool]string{true: "[+] ", false: "[-] "}[ready], ""
	await.Explain(n, "/readyz", func() string { return last })
	n.eventually(fmt.Sprintf("the node is ready: %t, and %s: %s", ready, check, want), func() bool {
		status, body := n.ask("/readyz")
		last = body
		found := line.FindStringSubmatch(body)
		return (status == http.StatusOK) == ready && status != 0 && found != nil && strings.HasPrefix(found[0], sign) &&
			(want == "" || unique(found[1]) == want)
	})
}
