package e2e

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/plugin/record"
	"golang.org/x/sys/unix"
)

// Environment variables that `make e2e FAULTS=… SEED=…` sets: the faults that are injected while any scenario runs,
// separated by commas, or all; and the seed that decides which fault comes where, when, and for how long.
const (
	faultsEnv = "E2E_FAULTS"
	seedEnv   = "E2E_SEED"
)

// fault is a way in which a node fails for some time.
type fault struct {
	name  string
	begin func(n *cluster.Node, random *rand.Rand) (end func() error, err error)
}

// start begins the fault. If it fails, it undoes what it has begun.
func (f fault) start(n *cluster.Node, random *rand.Rand) (end func() error, err error) {
	end, err = f.begin(n, random)
	if err != nil && end != nil {
		err = errors.Join(err, end())
	}
	return end, err
}

// errNotNow says that there is nothing to harm now.
var errNotNow = errors.New("not possible now")

// faults are all faults. Those of the API server affect host-network pods such as the agents.
var faults = []fault{
	{"agent-killed", onceTo("istio-pod-network-agent", syscall.SIGKILL)},
	{"agent-slow", stopped("istio-pod-network-agent")},
	{"agent-few-files", fewFiles},
	{"plugin-killed", onceTo("istio-pod-network", syscall.SIGKILL)},
	{"kubelet-killed", restarted("kubelet")},
	{"containerd-killed", restarted("containerd")},
	{"conf-dir-full", dir(cluster.ConfDir, (*cluster.Node).Fill)},
	{"conf-dir-read-only", dir(cluster.ConfDir, (*cluster.Node).ReadOnly)},
	{"bin-dir-full", dir(cluster.BinDir, (*cluster.Node).Fill)},
	{"bin-dir-read-only", dir(cluster.BinDir, (*cluster.Node).ReadOnly)},
	{"state-dir-full", dir(cluster.StateDir, (*cluster.Node).Fill)},
	{"state-dir-read-only", dir(cluster.StateDir, (*cluster.Node).ReadOnly)},
	{"conf-rewritten", rewritten},
	{"conf-removed", removed},
	{"conf-earlier", earlier},
	{"sandbox-killed", sandboxKilled},
	{"programs-missing", func(n *cluster.Node, _ *rand.Rand) (func() error, error) {
		return n.Hide("nft", "iptables", "ip6tables")
	}},
	{"clock-jump", clockJump},
	{"api-slow", trouble(apiserver.Trouble{Delay: 2 * time.Second})},
	{"api-errors", trouble(apiserver.Trouble{Status: http.StatusInternalServerError})},
	{"api-busy", trouble(apiserver.Trouble{Status: http.StatusTooManyRequests})},
	{"api-away", trouble(apiserver.Trouble{Abort: true})},
}

// nothing ends a fault that is already over.
func nothing() error { return nil }

func onceTo(program string, signal syscall.Signal) func(*cluster.Node, *rand.Rand) (func() error, error) {
	return func(n *cluster.Node, _ *rand.Rand) (func() error, error) {
		for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) { // a plugin runs for milliseconds
			if pids := n.Processes(program); len(pids) > 0 {
				if err := syscall.Kill(pids[0], signal); !errors.Is(err, syscall.ESRCH) { // else it has just ended
					return nothing, err
				}
			}
			if time.Now().After(deadline) {
				return nil, errNotNow
			}
		}
	}
}

// stopped returns a fault that stops a program with SIGSTOP.
func stopped(program string) func(*cluster.Node, *rand.Rand) (func() error, error) {
	return func(n *cluster.Node, _ *rand.Rand) (func() error, error) {
		pids := n.Processes(program)
		if len(pids) == 0 {
			return nil, errNotNow
		}
		return func() error { return gone(syscall.Kill(pids[0], syscall.SIGCONT)) },
			gone(syscall.Kill(pids[0], syscall.SIGSTOP))
	}
}

// gone ignores the error that a process has ended.
func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// fewFiles allows the agent to open only two more files.
func fewFiles(n *cluster.Node, _ *rand.Rand) (func() error, error) {
	pids := n.Processes("istio-pod-network-agent")
	if len(pids) == 0 {
		return nil, errNotNow
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pids[0]))
	if err != nil {
		return nil, errNotNow
	}
	limit := func(most uint64) error {
		var limits unix.Rlimit
		if err := unix.Prlimit(pids[0], unix.RLIMIT_NOFILE, nil, &limits); err != nil {
			return gone(err)
		}
		limits.Cur = min(most, limits.Max)
		return gone(unix.Prlimit(pids[0], unix.RLIMIT_NOFILE, &limits, nil))
	}
	return func() error { return limit(1 << 20) }, limit(uint64(len(open) + 2))
}

func restarted(program string) func(*cluster.Node, *rand.Rand) (func() error, error) {
	return func(n *cluster.Node, _ *rand.Rand) (func() error, error) { return nothing, n.Kill(program) }
}

func dir(
	path string, harm func(*cluster.Node, string) (func() error, error),
) func(*cluster.Node, *rand.Rand) (func() error, error) {
	return func(n *cluster.Node, _ *rand.Rand) (func() error, error) { return harm(n, path) }
}

// rewritten is a primary CNI that writes its configuration again, without our entry.
func rewritten(n *cluster.Node, _ *rand.Rand) (func() error, error) {
	return nothing, replace(n.Conflist(), []byte(n.Primary(cluster.DualStack)))
}

// removed is a primary CNI that removes its configuration for some time.
func removed(n *cluster.Node, _ *rand.Rand) (func() error, error) {
	return func() error { return replace(n.Conflist(), []byte(n.Primary(cluster.DualStack))) }, os.Remove(n.Conflist())
}

// earlier adds another network's configuration that sorts before the primary's.
func earlier(n *cluster.Node, _ *rand.Rand) (func() error, error) {
	config, err := otherNetwork(n)
	if err != nil {
		return nil, err
	}
	path := n.Path(cluster.ConfDir + "/05-other.conflist")
	return func() error { return os.Remove(path) }, replace(path, config)
}

// sandboxKilled kills the pause container of a random mesh pod.
func sandboxKilled(n *cluster.Node, random *rand.Rand) (func() error, error) {
	records, _ := record.Store{Dir: n.Path(stateDir)}.List()
	if len(records) == 0 {
		return nil, errNotNow
	}
	if err := n.Ctr("tasks", "kill", "--signal=KILL", records[random.IntN(len(records))].ContainerID).Run(); err != nil {
		return nil, errNotNow // the sandbox has ended in the meantime
	}
	return nothing, nil
}

// clockJump changes the time that agents and plugins of a node see, by up to an hour. It has an effect only on programs
// that were built with scripts/clock.sh.
func clockJump(n *cluster.Node, random *rand.Rand) (func() error, error) {
	file := n.Path(clockFile)
	seconds := random.IntN(7200) - 3600
	return func() error { return os.Remove(file) }, os.WriteFile(file, []byte(strconv.Itoa(seconds)), 0o644)
}

// clockFile is the file with the offset of the clock, in seconds, that programs built with scripts/clock.sh read.
const clockFile = cluster.BinDir + "/.clock-offset"

func trouble(t apiserver.Trouble) func(*cluster.Node, *rand.Rand) (func() error, error) {
	return func(*cluster.Node, *rand.Rand) (func() error, error) {
		nodes.Gate.Set(t)
		return func() error { nodes.Gate.Set(apiserver.Trouble{}); return nil }, nil
	}
}

// named returns the faults with those names. It panics on an unknown name.
func named(list string) []fault {
	if list == "all" {
		return faults
	}
	var picked []fault
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
		if i < 0 {
			panic(fmt.Sprintf("%s: %q is no fault; valid: all, or some of %s", faultsEnv, name,
				strings.Join(listed(faults), ",")))
		}
		picked = append(picked, faults[i])
	}
	return picked
}

// seed returns the requested seed, or a random one.
var seed = sync.OnceValue(func() uint64 {
	text := os.Getenv(seedEnv)
	if text == "" {
		return rand.Uint64() >> 32
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s: %q is no number from 0 on", seedEnv, text))
	}
	return n
})

// injection is a running injection of faults.
type injection struct {
	mu     sync.Mutex
	log    strings.Builder
	counts map[string]int
	ended  chan struct{}
	work   sync.WaitGroup
	start  time.Time
}

// inject injects faults on every node, and at the API server, until heal is called, which also undoes them. The seed
// decides which fault comes when.
func (r *rig) inject(list []fault, seed uint64) (heal func()) {
	r.Helper()
	in := &injection{counts: map[string]int{}, ended: make(chan struct{}), start: time.Now()}
	var ofNodes, ofServer []fault
	for _, f := range list {
		if strings.HasPrefix(f.name, "api-") {
			ofServer = append(ofServer, f)
		} else {
			ofNodes = append(ofNodes, f)
		}
	}
	drive := func(n *cluster.Node, list []fault, stream uint64) {
		if len(list) > 0 {
			in.work.Go(func() { in.drive(n, list, rand.New(rand.NewPCG(seed, stream))) })
		}
	}
	for _, n := range nodes.Nodes {
		drive(n, ofNodes, uint64(n.Number))
	}
	drive(nodes.Nodes[0], ofServer, 0)
	heal = sync.OnceFunc(func() {
		close(in.ended)
		in.work.Wait()
		var counts []string
		for _, name := range slices.Sorted(maps.Keys(in.counts)) {
			counts = append(counts, fmt.Sprint(in.counts[name], " ", name))
		}
		r.Logf("faults of seed %d: %s", seed, strings.Join(counts, ", "))
	})
	r.Cleanup(func() {
		heal()
		if r.Failed() {
			r.Logf("to have the same faults again: FAULTS=%s SEED=%d\n%s", strings.Join(listed(list), ","), seed,
				in.log.String())
		}
	})
	return heal
}

func listed(list []fault) []string {
	var all []string
	for _, f := range list {
		all = append(all, f.name)
	}
	return all
}

// drive injects one fault after the other.
func (in *injection) drive(n *cluster.Node, list []fault, random *rand.Rand) {
	for {
		pause := time.Duration(500+random.IntN(4000)) * time.Millisecond
		f := list[random.IntN(len(list))]
		lasting := time.Duration(500+random.IntN(6000)) * time.Millisecond
		its := rand.New(rand.NewPCG(random.Uint64(), 0)) // so that a fault's random numbers do not change the next faults
		if !in.sleep(pause) {
			return
		}
		end, err := f.start(n, its)
		in.note(n, f.name, fmt.Sprint("for ", lasting), err)
		if err != nil {
			continue
		}
		in.sleep(lasting)
		if err := end(); err != nil {
			in.note(n, f.name, "ends", err)
		}
	}
}

// sleep waits, and reports whether the injection continues.
func (in *injection) sleep(d time.Duration) bool {
	select {
	case <-in.ended:
		return false
	case <-time.After(d):
		return true
	}
}

func (in *injection) note(n *cluster.Node, name, what string, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err == nil {
		in.counts[name]++
	}
	fmt.Fprintf(&in.log, "%6.1f s %s %s %s", time.Since(in.start).Seconds(), n.Name, name, what)
	if err != nil {
		fmt.Fprintf(&in.log, ": %v", err)
	}
	fmt.Fprintln(&in.log)
}

// Every fault can be injected and undone, and the nodes recover. An unknown name is refused.
func TestFaults(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	for _, f := range faults {
		for _, n := range nodes.Nodes {
			r.eventually(f.name+" on "+n.Name, func() bool {
				end, err := f.start(n, rand.New(rand.NewPCG(1, 1)))
				if errors.Is(err, errNotNow) {
					return f.name == "plugin-killed" || f.name == "sandbox-killed" // the program or sandbox does not exist now
				}
				must(r, err)
				must(r, end())
				return true
			})
			r.eventually(n.Name+" is ready", func() bool { return n.Ready(r.ctx) })
		}
		r.agentsReady()
	}
	r.create(r.meshPod("after"))
	r.throughSidecar("after")
	defer func() {
		if recover() == nil {
			t.Error("any word is a fault")
		}
	}()
	named("agent-killed,nonsense")
}
