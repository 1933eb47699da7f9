package netfilter

import (
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
	"github.com/istio-pod-network/controller/plugin/trace/tracetest"
)

// FuzzTraffic draws settings and packets from a seed, and sends the packets with the rules of every backend. Each must
// land where Istio's semantics say (testnet.Expected, which knows nothing of the rules), and where package trace, which
// knows nothing of the semantics, predicts it from the rules. The seed is the whole input.
func FuzzTraffic(f *testing.F) {
	for seed := range uint64(12) {
		f.Add(seed)
	}
	for _, seed := range []uint64{
		211046642, // a nat chain in a namespace without connection tracking
		500163,    // a reset to ::1 from another address of lo
	} {
		f.Add(seed)
	}
	// creating a lab costs more than a hundred packets, so every process of the fuzzer has one
	lab := sync.OnceValues(func() (*testnet.Lab, error) { return testnet.New(testnet.Options{}) })
	f.Cleanup(func() {
		if l, err := lab(); err == nil {
			_ = l.Close()
		}
	})
	f.Fuzz(func(t *testing.T, seed uint64) {
		l, err := lab()
		if err != nil {
			t.Fatal(err)
		}
		n, err := Open(l.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		differ(t, l, n, seed, backends)
	})
}

// TestRandomTraffic does the same for consecutive seeds from SEED on, until each backend has had PACKETS packets, or
// for PACKETS if it is a duration. A run can be repeated, and `make fuzz PACKETS=1 SEED=N` runs the input N. Go's
// fuzzer would end an input that takes 10 s (internal/fuzz, RunFuzzWorker), as some do on a busy machine.
func TestRandomTraffic(t *testing.T) {
	packets, seed := uint64(math.MaxUint64), number(t, "SEED", 1000)
	within, err := time.ParseDuration(os.Getenv("PACKETS"))
	if err == nil && within > 0 {
		t.Logf("seed %d: packets for %v", seed, within)
	} else {
		packets = number(t, "PACKETS", 200)
		t.Logf("seed %d: %d packets by each backend", seed, packets)
	}
	until := time.Now().Add(within)
	const told = 10000 // packets between two lines of progress
	var inputs, beside atomic.Uint64
	sent := make([]atomic.Uint64, len(backends))
	var failed atomic.Bool
	lab := func(t *testing.T) {
		t.Parallel()
		lab, n := newLab(t, testnet.Options{})
		for !failed.Load() && sent[len(backends)-1].Load() < packets && (within == 0 || time.Now().Before(until)) {
			its := differ(t, lab, n, seed+inputs.Add(1)-1, backends)
			failed.Store(failed.Load() || t.Failed())
			for i := range backends {
				now := sent[i].Add(uint64(its.sent))
				if i == 0 && now/told > (now-uint64(its.sent))/told {
					t.Logf("%d packets by each backend", now)
				}
			}
			if its.beside {
				beside.Add(uint64(its.sent))
			}
		}
	}
	t.Run("labs", func(t *testing.T) {
		for i := range min(runtime.GOMAXPROCS(0), int(min(packets, 1000)+99)/100) { // a single worker for a single input
			t.Run(strconv.Itoa(i), lab)
		}
	})
	for i, backend := range backends {
		t.Logf("%s: %d packets, %d of them beside chains of others, by %d inputs", backend, sent[i].Load(), beside.Load(),
			inputs.Load())
	}
}

// number reads an environment variable.
func number(t *testing.T, name string, missing uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return missing
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: %v; valid: a number", name, text, err)
	}
	return n
}

// input is the result of one seed.
type input struct {
	sent   int  // packets per backend
	beside bool // there were chains of others
}

// differ draws an input from a seed, and fails for each packet that lands elsewhere in the kernel. Half of the inputs
// have chains of others, too: Istio's semantics do not cover these, but package trace does.
func differ(t *testing.T, l *testnet.Lab, n *NetNS, seed uint64, backends []Backend) (its input) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	profile := testnet.RandomProfile(random)
	flows := testnet.RandomFlows(random, profile, 60)
	if err := l.Use(profile); err != nil {
		t.Error(err)
		return its
	}
	rules := ruleSet(t, profile)
	predictor := predictorOf(t, profile)
	o := &others{}
	if random.IntN(2) == 0 {
		o, flows = randomOthers(random), ordinary(flows)
		its.beside, predictor.Rules.Foreign = true, o.chains
	}
	for _, backend := range backends {
		predictor.Rules.Iptables = backend != Nftables
		applied, err := n.Apply(backend, rules)
		if err != nil {
			t.Errorf("seed %d: %s: %s: %v", seed, backend, profile.JSON(), err)
			return its
		}
		try := l.TryFlows
		remove := func() {}
		if its.beside {
			remove = o.write(t, l)
			try = func(flows []testnet.Flow) []testnet.Result { return l.TryWanted(flows, predictor.Beside) }
		}
		if err := l.Reset(); err != nil {
			t.Error(err)
		}
		results := try(flows)
		its.sent = len(results)
		for _, result := range results {
			if !result.OK() {
				t.Errorf("seed %d: %s: %s: %s", seed, backend, profile.JSON(), result)
			}
			if want, agrees := predictor.Agrees(result); !its.beside && !agrees {
				t.Errorf("seed %d: %s: %s: %s; trace says %s", seed, backend, profile.JSON(), result, want)
			}
		}
		if err := n.Check(applied, rules); err != nil && !its.beside { // chains of others that run before ours are drift
			t.Errorf("seed %d: %s: %s: %v", seed, backend, profile.JSON(), err)
		}
		remove()
	}
	if its.beside && t.Failed() {
		t.Logf("seed %d has, of others:\n%s", seed, o.text.String())
	}
	return its
}

// predictorOf returns package trace's predictions for the flows of a profile.
func predictorOf(t *testing.T, profile testnet.Profile) tracetest.Predictor {
	t.Helper()
	spec, err := redirect.ParseSpec(profile.JSON())
	if err != nil {
		t.Fatal(err)
	}
	spec = spec.ForAddresses(redirect.Families)
	return tracetest.Predictor{Rules: trace.Rules{RuleSet: spec.RuleSet(), Spec: spec}, Profile: profile}
}
