package record

import (
	"os"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/fdleak"
)

// TestMain turns the test binary into the writer of TestKilledWriter if writerEnv is set, and fails the tests if they
// leave file descriptors open.
func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		writeForever(Store{Dir: dir})
	}
	os.Exit(fdleak.Run(m))
}

// sample is a record with a value for every key. The frozen fixture v1-redirect.json contains it.
func sample() Record {
	return Record{
		Version:     1,
		Network:     "k8s-pod-network",
		IfName:      "eth0",
		ContainerID: "6f1e0b9b1c3c4ab1f7f2f6de57cbbd2a5d2b1a0c9e8d7c6b5a49382716051423",
		PodUID:      "0f3b2a52-7d1d-4f0e-9d5b-6a7c8d9e0f10",
		Namespace:   "shop",
		Name:        "cart-7c9d6b5f4-x2x7k",
		NetNS:       "3c1a7f0e-2f64-4a6d-9a55-7f4f0f6f5a11/4026532290/8193",
		Decision:    Redirect,
		Reason:      "injected",
		Detail:      "address skipped",
		Backend:     "nftables",
		RuleSetHash: "sha256:4c1f", Families: "IPv4",
		Spec:    []byte(`{"mode":"REDIRECT","outboundPort":15001,"includeOutboundIPRanges":"*"}`),
		Created: []string{"address ::6/128 lo"},
		Skipped: []string{"route of table 133: IPv6 is disabled in the namespace"},
		Time:    time.Date(2025, 3, 4, 5, 6, 7, 8, time.UTC),

		DurationMicroseconds: 5321,
	}
}

// of returns sample for another attachment.
func of(network, containerID, ifname string) Record {
	r := sample()
	r.Network, r.ContainerID, r.IfName = network, containerID, ifname
	return r
}

// put stores records, and fails the test on an error.
func put(t testing.TB, s Store, records ...Record) {
	t.Helper()
	for _, r := range records {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
}

// drop writes a file into the directory of the records.
func drop(t testing.TB, s Store, name, contents string) {
	t.Helper()
	if err := os.MkdirAll(s.Pods(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Pods()+"/"+name, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fileNames lists the directory of the records.
func fileNames(t testing.TB, s Store) []string {
	t.Helper()
	entries, err := s.entries()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
