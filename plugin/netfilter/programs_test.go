package netfilter

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// logPrograms puts a wrapper that logs its name before every program of iptables, and before nsenter. The function that
// it returns returns what was run since its last call. Not for parallel tests.
func logPrograms(t *testing.T) func() []string {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	programs, err := filepath.Glob("/usr/sbin/*tables*")
	if err != nil || len(programs) == 0 {
		t.Fatalf("%q, %v", programs, err)
	}
	for _, path := range append(programs, "/usr/bin/nsenter") {
		script := fmt.Sprintf("#!/bin/sh\necho %s >>%s\nexec %s \"$@\"\n", filepath.Base(path), log, path)
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		t.Helper()
		data, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.RemoveAll(log); err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(data))
	}
}

// TestPrograms counts the programs that each verb runs, without nsenter.
func TestPrograms(t *testing.T) {
	rules := named(t, "tproxy-exclude-interfaces")
	for _, backend := range []Backend{IptablesNFT, IptablesLegacy} {
		t.Run(string(backend), func(t *testing.T) {
			ran := logPrograms(t)
			atMost := func(verb string, limit int) {
				t.Helper()
				per := map[string]int{}
				for _, program := range ran() {
					family, _, _ := strings.Cut(program, "-")
					per[family]++
				}
				for _, family := range []string{"iptables", "ip6tables"} {
					if per[family] > limit {
						t.Errorf("%s runs %d programs of %s, at most %d are wanted", verb, per[family], family, limit)
					}
				}
				t.Logf("%s: %v", verb, per)
			}
			lab, n := newLab(t, testnet.Options{})
			applied := apply(t, n, backend, rules)
			atMost("ADD", 1)
			if err := n.Check(applied, rules); err != nil {
				t.Error(err)
			}
			atMost("CHECK", 3)
			apply(t, n, backend, rules)
			atMost("another ADD", 2)
			shell(t, lab, iptablesName(4)+strings.TrimPrefix(string(backend), "iptables")+" -t nat -D ISTIO_OUTPUT 1")
			ran()
			if err := n.Check(applied, rules); !IsDrift(err) {
				t.Error(err)
			}
			atMost("CHECK that finds a drift", 3)
			if err := n.Remove(applied); err != nil {
				t.Error(err)
			}
			atMost("DEL", 2)
		})
	}
}
