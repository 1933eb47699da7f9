package plugin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// cart is the agent's answer for the pod in podArgs.
func cart() redirect.Pod {
	uid := int64(4242)
	return redirect.Pod{
		Namespace: "shop", Name: "cart-0", UID: "0f3b2a52", Complete: true,
		Annotations: map[string]string{annotation.SidecarStatus: "{}"},
		Containers:  []redirect.Container{{Name: "app"}, {Name: redirect.ProxyContainer, RunAsUser: &uid}},
	}
}

// withAgent configures a socket in a directory that package facts trusts, and uses the real client. Nobody listens on
// it yet, and the timeout is short. A test whose agent answers sets a timeout that a busy machine does not exceed.
func (r *rig) withAgent() string {
	dir, err := os.MkdirTemp("", "agent") // TempDir's path is too long for a socket, and its parent is shared
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "run", "agent.sock")
	r.ask = facts.Ask
	r.conf["agentSocket"], r.conf["agentTimeout"] = socket, "100ms"
	return socket
}

// serve runs an agent that answers with the given function.
func (r *rig) serve(socket string, answer func(context.Context, facts.Request) facts.Response) {
	r.Helper()
	l, err := facts.Listen(socket)
	if err != nil {
		r.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- facts.Serve(l, answer) }()
	r.Cleanup(func() {
		_ = l.Close()
		if err := <-done; err != nil {
			r.Error(err)
		}
	})
}

func TestAgentAnswers(t *testing.T) {
	r := newRig(t)
	var asked facts.Request
	r.serve(r.withAgent(), func(_ context.Context, q facts.Request) facts.Response {
		asked = q
		pod := cart()
		return facts.Response{Pod: &pod}
	})
	r.conf["agentTimeout"] = "60s"
	r.must("ADD")
	r.redirected(`{"proxyUID":4242}`)
	want := facts.Request{Version: 1, Op: "pod", Namespace: "shop", Name: "cart-0", UID: "0f3b2a52", NoNamespace: true}
	if asked != want {
		t.Errorf("asked %+v, want %+v", asked, want)
	}
	r.conf["selection"], want.NoNamespace = "annotated", false // the namespace may opt the pod in or out
	if r.must("ADD"); asked != want {
		t.Errorf("with selection annotated asked %+v, want %+v", asked, want)
	}
}

// Without an answer that can be trusted, a pod that may be in the mesh has to wait, and the error says what it waits
// for.
func TestAgentWithoutAnswer(t *testing.T) {
	const uninstall = "istio-pod-network-install uninstall"
	answer := func(response facts.Response) func(*rig, string) {
		return func(r *rig, socket string) {
			r.serve(socket, func(context.Context, facts.Request) facts.Response { return response })
		}
	}
	incomplete, other := cart(), cart()
	incomplete.Complete, other.Name = false, "cart-1"
	for name, test := range map[string]struct {
		agent func(*rig, string)
		words []string
	}{
		"absent": {brief(func(*rig, string) {}),
			[]string{"no answer within", "check that the agent runs on this node", uninstall}},
		"nobody listens": {brief(func(r *rig, socket string) {
			l, err := facts.Listen(socket)
			if err != nil {
				r.Fatal(err)
			}
			_ = l.Close()
		}), []string{"connection refused", uninstall}},
		"slow": {brief(func(r *rig, socket string) {
			r.serve(socket, func(ctx context.Context, _ facts.Request) facts.Response {
				<-ctx.Done()
				return facts.Response{}
			})
		}), []string{"no answer within ", "check its log", uninstall}},
		"garbage":      {garbage("hello\n"), []string{`"hello"`}},
		"next version": {garbage(`{"version":2}` + "\n"), []string{"protocol version 2", "speaks version 1"}},
		"error": {answer(facts.Response{Error: &facts.Error{Code: 11, Message: "the API server is away"}}),
			[]string{"the API server is away (code 11)"}},
		"incomplete":  {answer(facts.Response{Pod: &incomplete}), []string{"lacks the pod's containers"}},
		"another pod": {answer(facts.Response{Pod: &other}), []string{"about another pod", "shop/cart-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			socket := r.withAgent()
			r.conf["agentTimeout"] = "60s"
			test.agent(r, socket)
			r.fails("ADD", 11, append(test.words, "deciding about pod shop/cart-0", socket)...)
			r.clean()
			if r.opened != 0 {
				t.Error("the namespace was opened")
			}
		})
	}
}

// brief sets a short agentTimeout, for an agent that lets the plugin wait until it expires.
func brief(agent func(*rig, string)) func(*rig, string) {
	return func(r *rig, socket string) {
		r.conf["agentTimeout"] = "100ms"
		agent(r, socket)
	}
}

// garbage is an agent that answers every question with the text.
func garbage(text string) func(*rig, string) {
	return func(r *rig, socket string) {
		l, err := facts.Listen(socket)
		if err != nil {
			r.Fatal(err)
		}
		r.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = bufio.NewReader(conn).ReadString('\n')
				_, _ = io.WriteString(conn, text)
				_ = conn.Close()
			}
		}()
	}
}

// agentEnv is the environment variable that turns the test binary into an agent. Its value is the socket's path. The
// agent runs until its standard input ends.
const agentEnv = "PLUGIN_TEST_AGENT"

func impostor(socket string) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	go func() { _, _ = l.Accept() }()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// An agent of another user is not trusted, even if its socket is in a directory of root.
func TestAgentOfAnotherUser(t *testing.T) {
	const nobody = 65534
	r := newRig(t)
	socket := r.withAgent()
	dir := filepath.Dir(socket)
	for _, err := range []error{os.Mkdir(dir, 0o700), os.Chown(dir, nobody, nobody), os.Chmod(filepath.Dir(dir), 0o711)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe") // by /proc, because the other user may not be able to reach the binary's path
	cmd.Env = append(os.Environ(), agentEnv+"="+socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = stdin.Close(), cmd.Wait() }()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the other user's agent says %q, %v", line, err)
	}
	r.fails("ADD", 11, "deciding about pod shop/cart-0", "belongs to uid 65534")
	if err := os.Chown(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	r.fails("ADD", 11, "deciding about pod shop/cart-0", "runs as uid 65534", "only root is believed")
	r.clean()
}

// Asking the agent costs a pod time, and the agent may be down: it is asked only if its answer can change the decision.
func TestWhoAsksTheAgent(t *testing.T) {
	for name, test := range map[string]struct {
		runtime   object // runtimeConfig; nil: the runtime passes none, as Multus does
		args      string
		selection string
		asks      int
		verdict   string
	}{
		"plain pod":               {object{annotationsCapability: object{"a": "b"}}, podArgs, "injected", 0, "untouched"},
		"pod without annotations": {object{annotationsCapability: nil}, podArgs, "injected", 0, "untouched"},
		"excluded namespace": {object{annotationsCapability: mesh}, "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=p",
			"injected", 0, "untouched"},
		"excluded, by Multus": {nil, "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=p", "annotated", 0, "untouched"},
		"no pod":              {nil, "", "injected", 0, "untouched"},
		"opted out": {object{annotationsCapability: object{annotation.Initialize: "false"}}, podArgs, "annotated",
			0, "untouched"},
		"mesh pod":             {object{annotationsCapability: mesh}, podArgs, "injected", 1, "redirect"},
		"Multus":               {nil, podArgs, "injected", 1, "redirect"},
		"Multus, other config": {object{"mac": "x"}, podArgs, "injected", 1, "redirect"},
		"annotated, no answer": {object{annotationsCapability: mesh}, podArgs, "annotated", 1, "untouched"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.answer = func(facts.Request) (redirect.Pod, error) { return cart(), nil }
			r.conf["agentSocket"], r.conf["selection"], r.conf["runtimeConfig"] = unaskable, test.selection, test.runtime
			if test.runtime == nil {
				delete(r.conf, "runtimeConfig")
			}
			r.args.Args = test.args
			r.must("ADD")
			if len(r.asked) != test.asks {
				t.Errorf("asked %+v, want %d questions", r.asked, test.asks)
			}
			says(t, r.log.String(), "decision="+test.verdict)
		})
	}
}

// A pod is refused if it has an invalid setting that only the agent's answer contains.
func TestAgentKnowsInvalidSetting(t *testing.T) {
	r := newRig(t)
	r.conf["agentSocket"] = unaskable
	r.answer = func(facts.Request) (redirect.Pod, error) {
		pod := cart()
		pod.Annotations[annotation.ExcludeInboundPorts] = "80,,90"
		return pod, nil
	}
	r.fails("ADD", codeAnnotation, annotation.ExcludeInboundPorts, `"80,,90"`, "a comma-separated list of ports")
	uid := int64(-1)
	r.answer = func(facts.Request) (redirect.Pod, error) {
		pod := cart()
		pod.Containers[1].RunAsUser = &uid
		return pod, nil
	}
	r.fails("ADD", codeAnnotation, "istio-proxy", "runAsUser", `"-1"`, "0 to 4294967294")
	r.clean()
}

// A pod whose app runs as the sidecar's user is started with the agent's warning, or refused, as the operator
// configured.
func TestSharedProxyUser(t *testing.T) {
	r := newRig(t)
	r.conf["agentSocket"] = unaskable
	r.answer = func(facts.Request) (redirect.Pod, error) {
		pod := cart()
		pod.Containers[0].RunAsUser = pod.Containers[1].RunAsUser
		return pod, nil
	}
	r.conf["sharedProxyUser"] = "refuse"
	r.fails("ADD", codeAnnotation, "shop/cart-0", "container app", "user 4242", "sharedProxyUser", "any other")
	r.clean()
	delete(r.conf, "sharedProxyUser")
	r.must("ADD")
	r.redirected(`{"proxyUID":4242}`)
}

// Without annotations from the runtime (CRI-O before 1.29) and without an agent, nothing is known of a pod, and it may
// be in the mesh. It is refused or, with auxFailOpen, left untouched with a warning, as when the agent does not answer.
func TestNothingIsKnown(t *testing.T) {
	r := newRig(t)
	delete(r.conf, "runtimeConfig")
	r.fails("ADD", 7, "shop/cart-0", "agentSocket", "hands over no annotations", "CRI-O before 1.29", "auxFailOpen")
	r.clean()
	r.conf["auxFailOpen"] = true
	r.must("ADD")
	says(r, r.log.String(), "level=warning", "auxFailOpen", "reason=agent-away", "hands over no annotations")
	r.clean()
	delete(r.conf, "auxFailOpen")
	r.args.Args = "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=p"
	r.must("ADD")
	says(r, r.log.String(), "level=info", "reason=namespace-excluded")
	r.args.Args = ""
	r.must("ADD")
	says(r, r.log.String(), "level=info", "reason=not-kubernetes")
	if len(r.asked) != 0 || r.opened != 0 {
		t.Errorf("asked %d times, opened %d", len(r.asked), r.opened)
	}
}

// With auxFailOpen a pod starts without rules if nothing is known of it. It gets no record, because a record would end
// its init wait. A pod still has to wait if its annotations show that it is in the mesh, or if an agent answers that it
// does not know.
func TestAuxFailOpen(t *testing.T) {
	for name, test := range map[string]struct {
		open, known, answers bool
		refused              bool
	}{
		"nobody answers": {true, false, false, false},
		"nobody answers, and it is not asked for": {false, false, false, true},
		"the annotations tell":                    {true, true, false, true},
		"the agent answers that it cannot know":   {true, false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			socket := r.withAgent()
			r.conf["auxFailOpen"] = test.open
			if delete(r.conf, "runtimeConfig"); test.known {
				r.annotate(object{annotation.SidecarStatus: "{}"})
			}
			if test.answers {
				r.conf["agentTimeout"] = "60s"
				r.serve(socket, func(context.Context, facts.Request) facts.Response {
					return facts.Response{Error: &facts.Error{Code: 11, Message: "the API server is away"}}
				})
			}
			if test.refused {
				r.fails("ADD", 11)
			} else {
				r.must("ADD")
				says(r, r.log.String(), "level=warning", "auxFailOpen", "reason=agent-away")
			}
			r.clean()
		})
	}
	r := newRig(t)
	r.conf["auxFailOpen"] = "yes"
	r.fails("ADD", 7, "auxFailOpen", `"yes"`, "true or false")
}
