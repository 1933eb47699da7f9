package testnet

import (
	"testing"
	"time"
)

// TestSlow first makes the app slower than any timeout, and then lets nothing reach it: no timeout tells the two apart.
func TestSlow(t *testing.T) {
	l := newLab(t, Options{Families: []Family{IPv4}})
	if err := l.Use(NoRules); err != nil {
		t.Fatal(err)
	}
	flow := Flow{Name: "peer-pod", From: FromPeer, Proto: TCP, To: Pod, Port: 8080}
	l.servers[0].submit(func() { time.Sleep(2 * time.Second) })
	if got := l.Run(flow, IPv4); got.Landed != AtApp {
		t.Errorf("a slow answer counts as %s", got)
	}
	const rules = "table ip drops { chain in { type filter hook input priority 0; tcp dport 8080 drop; }; }"
	if out, err := l.PodCommand("nft", rules).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := l.Run(flow, IPv4); got.Landed != Timeout {
		t.Errorf("a dropped packet counts as %s", got)
	}
}
