package flows

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/escape"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/flows/report"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

const (
	proxyUser = 1337
	appUser   = 65532
)

var settings = fmt.Sprintf(`{"dnsCapture": true, "excludeOutboundPorts": "%d", "excludeInboundPorts": "%d"}`,
	report.ExcludedOutboundPort, report.ExcludedInboundPort)

// built is the path of the built program.
var built string

func TestMain(m *testing.M) {
	if os.Getenv(playsEnvoy) != "" {
		panic(playEnvoy())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "flows-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // other users run the program
			panic(err)
		}
		built = filepath.Join(dir, name)
		if out, err := exec.Command("go", "build", "-o", built, "../istio-pod-network-flows").CombinedOutput(); err != nil {
			panic(string(out))
		}
		if err := copyTest(built + "-envoy"); err != nil {
			panic(err)
		}
		status := m.Run()
		if left := exec.Command("pgrep", "-fa", "^"+built).Run(); left == nil {
			fmt.Fprintln(os.Stderr, "a program that a test has started is still running:", built)
			return max(status, 1)
		}
		return status
	}())
}

// pods are a pod and its peer, without any server.
type pods struct {
	*testing.T
	lab    *testnet.Lab
	secret string
}

func newPods(t *testing.T, families ...testnet.Family) pods {
	t.Helper()
	lab, err := testnet.New(testnet.Options{Bare: true, Families: families})
	await.Must(t, err)
	t.Cleanup(func() { _ = lab.Close() })
	return pods{T: t, lab: lab}
}

// redirected writes the rules of the settings to the pod, without the tables for which without returns true.
func (p pods) redirected(settings string, without func(redirect.Table) bool) {
	p.Helper()
	spec, err := redirect.ParseSpec([]byte(settings))
	await.Must(p.T, err)
	rules := spec.RuleSet()
	rules.Tables = slices.DeleteFunc(slices.Clone(rules.Tables), without)
	n, err := netfilter.Open(p.lab.Path)
	await.Must(p.T, err)
	defer n.Close()
	_, err = n.Apply(netfilter.Nftables, rules)
	await.Must(p.T, err)
}

func nothing(redirect.Table) bool { return false }

// peers is the value of --peer.
func (p pods) peers() string {
	var all []string
	for _, family := range p.lab.Families() {
		all = append(all, testnet.Peer.Addr(family).String())
	}
	return strings.Join(all, ",")
}

// as returns the command that runs the program as a user without any privilege, and the buffer of its output.
func (p pods) as(netns string, user int, args ...string) (*exec.Cmd, *bytes.Buffer) {
	id := fmt.Sprint(user)
	c := exec.Command("nsenter", append([]string{"--net=" + netns, "setpriv", "--reuid=" + id, "--regid=" + id,
		"--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", built}, args...)...)
	c.Env = append(os.Environ(), report.Secret+"="+p.secret)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	return c, &out
}

// running starts the program. ended ends it, and returns what it has printed.
func (p pods) running(netns string, user int, args ...string) (ended func() (string, error)) {
	p.Helper()
	c, out := p.as(netns, user, args...)
	await.Must(p.T, c.Start())
	wait := sync.OnceValue(c.Wait)
	p.Cleanup(func() {
		_ = c.Process.Kill()
		_ = wait()
	})
	return func() (string, error) { err := wait(); return out.String(), err }
}

// peer starts the peer. callers ends it, and returns who has reached it.
func (p pods) peer() (callers func() map[string]bool) {
	p.Helper()
	c, out := p.as(p.lab.PeerPath, appUser, "peer")
	await.Must(p.T, c.Start())
	p.Cleanup(func() { // a process that stays would keep the test's output open
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	await.Eventually(p.T, time.Minute, "the peer serves", func() bool {
		out, err := exec.Command("nsenter", "--net="+p.lab.PeerPath, "ss", "-Hlnu", "sport", "=", ":8083").Output()
		return err == nil && len(out) > 0
	})
	return func() map[string]bool {
		p.Helper()
		await.Must(p.T, c.Process.Signal(os.Interrupt))
		await.Must(p.T, c.Wait())
		return report.Callers(out.String())
	}
}

// wants fails the test unless the log has exactly these results, each with its outcome.
func (p pods) wants(log string, ill ...string) {
	p.Helper()
	all := report.Parse(log)
	for _, r := range all {
		what := r.Flow + " " + r.Family
		if r.Well == slices.Contains(ill, what) {
			p.Errorf("%s: well is %t: %s", what, r.Well, r.Line())
		}
	}
	for _, what := range ill {
		if !slices.ContainsFunc(all, func(r report.Result) bool { return r.Flow+" "+r.Family == what }) {
			p.Errorf("%s was not made:\n%s", what, log)
		}
	}
	if len(all) == 0 {
		p.Errorf("nothing was made:\n%s", log)
	}
}

// attempts returns the names of the attempts that need neither a second interface nor a privilege at the peer.
func attempts(ipv6 bool) (names []string) {
	for _, a := range escape.Attempts {
		if a.In(ipv6) && !a.NeedsSecond() && !a.Helped {
			names = append(names, report.Escape+a.Name)
		}
	}
	return names
}

// A pod in the mesh and one outside it make the same flows to the same peer.
func TestFlows(t *testing.T) {
	t.Parallel()
	plain := []string{report.Outbound, report.DNS, report.DNSOverTCP, report.ExcludedOutbound, report.Inbound,
		report.ExcludedInbound}
	for kind, families := range map[string][]testnet.Family{"dual": nil, "IPv6": {testnet.IPv6}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := newPods(t, families...)
			p.secret = map[bool]string{true: "of this run"}[kind == "dual"]
			made := func(log string) {
				t.Helper()
				for _, family := range p.lab.Families() {
					var flows []string
					for _, r := range report.Parse(log) {
						if r.Family == family.String() {
							flows = append(flows, r.Flow)
						}
					}
					if want := slices.Concat(plain, attempts(family == testnet.IPv6)); !slices.Equal(flows, want) {
						t.Errorf("%s: %q, want %q", family, flows, want)
					}
				}
			}
			callers := p.peer()
			log, err := p.running(p.lab.Path, appUser, "app", "--outside", "--dns", "--name=plain", "--peer="+p.peers())()
			await.Must(t, err)
			p.wants(log)
			made(log)
			for _, r := range report.Parse(log) {
				if r.IsEscape() && !r.NoControl && r.Got != report.Peer {
					t.Errorf("a control that proves nothing: %s", r.Line())
				}
			}
			p.redirected(settings, nothing)
			sidecar := p.running(p.lab.Path, proxyUser, "sidecar", "--quit", "--name=mesh", "--peer="+p.peers())
			log, err = p.running(p.lab.Path, appUser, "app", "--dns", "--quit", "--name=mesh", "--peer="+p.peers())()
			if err != nil {
				t.Errorf("%v\n%s", err, log)
			}
			p.wants(log)
			made(log)
			log, err = sidecar()
			if err != nil {
				t.Errorf("the sidecar: %v\n%s", err, log)
			}
			p.wants(log)
			for caller := range callers() {
				if strings.HasPrefix(caller, "mesh ") && !strings.HasPrefix(caller, "mesh "+report.ProxyOutbound+" ") {
					t.Errorf("%q has reached the peer past the sidecar", caller)
				}
			}
		})
	}
}

// A server that answers in place of the pod, with the right names, is recognised as a stranger. A caller that uses the
// pod's name is not taken for the pod.
func TestStranger(t *testing.T) {
	t.Parallel()
	p := newPods(t)
	calls := func(secret, name string) []report.Result { // as a sidecar, because it has few flows
		t.Helper()
		p.secret = secret
		c, _ := p.as(p.lab.Path, proxyUser, "sidecar", "--name="+name, "--peer="+p.peers())
		log := await.NewOutput(t)
		c.Stdout, c.Stderr = log.File, log.File
		await.Must(t, c.Start())
		defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
		var all []report.Result
		await.Eventually(t, time.Minute, "the sidecar has called", func() bool {
			all = report.Parse(log.String())
			return len(all) == 2*len(p.lab.Families())
		})
		return all[:len(p.lab.Families())] // the others are calls to the pod's own address
	}
	p.secret = "of this run"
	callers := p.peer()
	for _, r := range calls("of another run", "mesh") {
		if r.Well || r.Got != report.Stranger {
			t.Errorf("a stranger calls: %s", r.Line())
		}
	}
	for _, r := range calls("of this run", "plain") {
		if !r.Well {
			t.Errorf("one of this run calls: %s", r.Line())
		}
	}
	if got := callers(); !got["plain proxy-outbound IPv4"] || got["mesh proxy-outbound IPv4"] {
		t.Errorf("told of: %v", got)
	}
	p.secret = ""
	p.peer()
	for _, r := range calls("of this run", "mesh") {
		if r.Well || r.Got != report.Stranger {
			t.Errorf("a stranger answers: %s", r.Line())
		}
	}
}

// The results name what is not redirected.
func TestFlowsFail(t *testing.T) {
	t.Parallel()
	p := newPods(t)
	p.peer()
	p.redirected(settings, func(table redirect.Table) bool { return table.Family == redirect.IPv6 })
	sidecar := p.running(p.lab.Path, proxyUser, "sidecar", "--quit", "--peer="+p.peers())
	log, err := p.running(p.lab.Path, appUser, "app", "--dns", "--quit", "--peer="+p.peers())()
	if err == nil {
		t.Error("all is well without rules for IPv6")
	}
	ill := []string{report.Outbound, report.DNS, report.DNSOverTCP, report.Inbound}
	ill = append(ill, attempts(true)...)
	for i := range ill {
		ill[i] += " IPv6"
	}
	p.wants(log, ill...)
	if log, err = sidecar(); err == nil {
		t.Error("the sidecar's flows are well without rules for IPv6")
	}
	p.wants(log, report.ProxyInbound+" IPv6")
}

// With families: proxy, IPv6 is not captured beside IPv4.
func TestOneFamily(t *testing.T) {
	t.Parallel()
	p := newPods(t)
	p.peer()
	p.redirected(settings, func(table redirect.Table) bool { return table.Family == redirect.IPv6 })
	p.running(p.lab.Path, proxyUser, "sidecar", "--quit", "--families=proxy", "--peer="+p.peers())
	log, err := p.running(p.lab.Path, appUser, "app", "--dns", "--quit", "--families=proxy", "--peer="+p.peers())()
	if err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

// Without a peer a pod proves less, and fails if there are no rules.
func TestAlone(t *testing.T) {
	t.Parallel()
	for _, rules := range []bool{true, false} {
		t.Run(fmt.Sprint("rules ", rules), func(t *testing.T) {
			t.Parallel()
			p := newPods(t, testnet.IPv4)
			if rules {
				p.redirected(settings, nothing)
			}
			sidecar := p.running(p.lab.Path, proxyUser, "sidecar", "--quit")
			log, err := p.running(p.lab.Path, appUser, "app", "--dns", "--quit")()
			if (err == nil) != rules || len(report.Parse(log)) != 3 {
				t.Errorf("%v\n%s", err, log)
			}
			if log, err = sidecar(); (err == nil) != rules || len(report.Parse(log)) != 1 {
				t.Errorf("the sidecar: %v\n%s", err, log)
			}
		})
	}
}

// The flows of a sidecar are not made by another user than the sidecar's.
func TestOneUser(t *testing.T) {
	t.Parallel()
	p := newPods(t)
	p.redirected(settings, nothing)
	sidecar := p.running(p.lab.Path, appUser, "sidecar", "--quit")
	log, err := p.running(p.lab.Path, appUser, "app", "--quit")()
	if err != nil {
		t.Errorf("%v\n%s", err, log)
	}
	if log, err = sidecar(); err != nil || log != "" {
		t.Errorf("the sidecar: %v\n%s", err, log)
	}
}

func TestMisuse(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"", `command: invalid value ""`},
		{"dance", "valid: app, sidecar, peer, serve"},
		{"app --peer=10.0.0.1,10.0.0.2", "one IP address of each family"},
		{"app --peer=::ffff:10.0.0.1", "one IP address of each family"},
		{"app --families=IPv4", "all, proxy"},
		{"app --timeout=0s", "more than zero"},
		{"sidecar --inbound-port=0", "a port from 1 to 65535"},
		{"sidecar --proxy-uid=0", "a user ID"},
		{"app --mtls=10.0.0.1", "an IP address and a port"},
		{"app --identity=verify", "the end of a SPIFFE ID"},
		{"peer here", "unexpected argument"},
	} {
		out, err := exec.Command(built, strings.Fields(c.args)...).CombinedOutput()
		var ended *exec.ExitError
		if !errors.As(err, &ended) || ended.ExitCode() != 2 || !strings.Contains(string(out), c.says) {
			t.Errorf("%q: %v: %s", c.args, err, out)
		}
	}
}
