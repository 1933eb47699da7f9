package netfilter

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// TestLoopbackDown writes to a pod whose lo is down, as containerd hands it over: its plugin loopback sets lo up while
// the primary network's plugins run. It refuses a lo that has ::6, so that is not there before lo is up, and for some
// time after: the plugin first sets lo up and then looks. Where nobody comes, lo is ours to set up, and down again.
func TestLoopbackDown(t *testing.T) {
	const address = "address ::6/128 dev lo"
	pausing := func(times int) []time.Duration { return slices.Repeat([]time.Duration{loopbackPause}, times) }
	for _, test := range []struct {
		name   string
		comes  int // the pause in which somebody sets lo up
		pauses []time.Duration
	}{
		{"late", 3, pausing(3 + loopbackLooks)},
		{"last", loopbackPauses, pausing(loopbackPauses + loopbackLooks)},
		{"never", 0, pausing(loopbackPauses)},
	} {
		t.Run(test.name, func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{Bare: true})
			shell(t, lab, "ip link set lo down")
			before := everything(t, lab)
			var pauses []time.Duration
			t.Cleanup(func() { pause = time.Sleep })
			pause = func(d time.Duration) {
				pauses = append(pauses, d)
				if text := shell(t, lab, "ip -o address show dev lo to ::6"); text != "" {
					t.Errorf("it is there in pause %d: %s", len(pauses), text)
				}
				if len(pauses) == test.comes {
					shell(t, lab, "ip link set lo up")
				}
			}
			rules := named(t, "default")
			applied := mustApply(t, n, Nftables, rules)
			if !slices.Equal(pauses, test.pauses) {
				t.Errorf("it has waited %v, not %v", pauses, test.pauses)
			}
			want := []string{address}
			if test.comes == 0 {
				want = []string{loopbackUp{}.String(), address}
			}
			if !slices.Equal(applied.Created, want) {
				t.Errorf("created %q, not %q", applied.Created, want)
			}
			if err := n.Check(applied, rules); err != nil {
				t.Error(err)
			}
			pauses = nil
			if again := mustApply(t, n, Nftables, rules); len(again.Created) > 0 || len(pauses) > 0 {
				t.Errorf("again: created %q, waited %v", again.Created, pauses)
			}
			if err := n.Remove(applied); err != nil {
				t.Error(err)
			}
			if test.comes == 0 {
				compareText(t, everything(t, lab), before)
			} else if text := shell(t, lab, "ip -o link show lo"); !strings.Contains(text, "LOOPBACK,UP") {
				t.Errorf("somebody else has set it up, and now it is %s", text)
			}
		})
	}
}

// TestUsableAtOnce tries the rules without waiting for a runtime, which no scratch namespace has.
func TestUsableAtOnce(t *testing.T) {
	t.Cleanup(func() { pause = time.Sleep })
	pause = func(d time.Duration) { t.Errorf("it waits for %s", d) }
	if err := Usable(Nftables, named(t, "default")); err != nil {
		t.Error(err)
	}
}
