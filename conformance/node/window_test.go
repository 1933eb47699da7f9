package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	"github.com/istio-pod-network/controller/plugin/record"
)

// A primary CNI writes its configuration again and again, without our entry, while libcni makes pods as a runtime does.
// Some pods are made while the plugin is not chained. They have no rules, and their wait never succeeds.
func TestUnchainedWindow(t *testing.T) {
	r := newRig(t)
	conflist := r.path("net.d/10-net.conflist")
	const alone = `{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "loopback"}, {"type": "tuning"}]}`
	write := func() {
		must(t, os.WriteFile(r.path("net.d/.new"), []byte(alone), 0o644))
		must(t, os.Rename(r.path("net.d/.new"), conflist))
	}
	write()
	r.startAgent()
	r.ready()
	ctx, stop := context.WithCancel(r.ctx)
	hostile := make(chan int)
	go func() {
		random := rand.New(rand.NewPCG(1, 2))
		for writes := 0; ; writes++ {
			select {
			case <-ctx.Done():
				hostile <- writes
				return
			case <-time.After(time.Duration(random.IntN(300)) * time.Millisecond):
				write()
			}
		}
	}()
	var missed []*podSandbox
	made, chained := 0, 0
	for ; made < 40 || made < 1000 && (chained == 0 || len(missed) == 0); made++ {
		s := r.sandbox(r.mesh(fmt.Sprint("cart-", made)))
		if s.addByRuntime(); s.isRecorded() {
			chained++
			rec, err := r.store.Get(s.ID, "lo")
			must(t, err)
			r.marked(s.pod.Name, rec)
			if status, out := s.wait("--mode=annotation", "--timeout=60"); status != 0 {
				t.Errorf("%s: status %d: %s", s.pod.Name, status, out)
			}
		} else {
			missed = append(missed, s)
		}
	}
	stop()
	writes := <-hostile
	r.ready()
	for _, s := range missed[:min(len(missed), 8)] { // also after the plugin is chained again
		if status, out := s.wait("--mode=any", "--timeout=1500ms"); status != 126 {
			t.Errorf("%s has no rules, and its wait ends with %d: %s", s.pod.Name, status, out)
		}
	}
	t.Logf("%d of %d pods were made while the plugin was not chained, beside %d writes of the primary", len(missed), made,
		writes)
	if chained == 0 || len(missed) == 0 {
		t.Error("the test has not seen both kinds of pods")
	}
}

// addByRuntime adds the sandbox to the network that is configured at the moment.
func (s *podSandbox) addByRuntime() { s.addAs("lo") }

// addAs is addByRuntime with another interface name. It returns the address.
func (s *podSandbox) addAs(ifName string) (address string) {
	s.Helper()
	list, err := libcni.NetworkConfFromFile(s.path("net.d/10-net.conflist"))
	must(s, err)
	runtime := libcni.NewCNIConfigWithCacheDir([]string{s.path("bin"), isolated.BinDir()}, s.path("cache"), nil)
	rt := &libcni.RuntimeConf{
		ContainerID: s.ID, NetNS: s.NetNS, IfName: ifName,
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", s.pod.Namespace},
			{"K8S_POD_NAME", s.pod.Name}, {"K8S_POD_UID", string(s.pod.UID)}},
		CapabilityArgs: map[string]any{"io.kubernetes.cri.pod-annotations": s.pod.Annotations},
	}
	made, err := runtime.AddNetworkList(s.ctx, list, rt)
	for deadline := time.Now().Add(patience); err != nil && outOfTime(err.Error()) && time.Now().Before(deadline); {
		must(s, runtime.DelNetworkList(s.ctx, list, rt)) // as runtime and kubelet do
		made, err = runtime.AddNetworkList(s.ctx, list, rt)
	}
	must(s, err)
	result, err := current.NewResultFromResult(made)
	must(s, err)
	return result.IPs[0].Address.IP.String()
}

func (s *podSandbox) isRecorded() bool {
	_, err := os.Stat(filepath.Join(s.store.Pods(), s.ID+"-lo.json"))
	return err == nil
}

// The agent does not interpret a record of another version: it does not mark the pod, logs why, and goes on.
func TestRecordOfAnotherVersion(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	next, torn, foreign := recordOf(r.mesh("next")), recordOf(r.mesh("torn")), recordOf(r.mesh("foreign"))
	// atomically, as every release does: the agent reads it as soon as it appears
	write := func(rec record.Record, contents string) {
		must(t, os.MkdirAll(r.store.Pods(), 0o700))
		must(t, os.WriteFile(r.path("run/.new"), []byte(contents), 0o600))
		must(t, os.Rename(r.path("run/.new"), filepath.Join(r.store.Pods(), rec.ContainerID+"-eth0.json")))
	}
	write(next, fmt.Sprintf(`{"version": 2, "podUID": %q, "decision": "redirect"}`, next.PodUID))
	write(torn, `{"version": 1, "podUID": `)
	write(foreign, fmt.Sprintf(`{"version":1,"network":"net","ifName":"eth0","containerID":"another","podUID":%q,`+
		`"netns":"%s/1/1","decision":"redirect"}`,
		foreign.PodUID, sandbox.BootID()))
	last := r.mesh("last")
	r.marked("last", r.put(recordOf(last)))
	for _, name := range []string{"next", "torn", "foreign"} {
		if got := markOn(r.pod(name)); got != (mark{}) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, words := range []string{"it has record version 2, this program knows version 1", "unexpected end of JSON input",
		`holds the record of container \"another\"`} {
		if got := strings.Count(r.agent.log.String(), words); got != 1 {
			t.Errorf("the log says %q %d times", words, got)
		}
	}
	// The plugin of this release runs and writes the record again.
	r.marked("next", r.put(next))
}
