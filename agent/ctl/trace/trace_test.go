package trace

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/spf13/pflag"
)

// traced runs the command, and returns its output and exit status.
func traced(t *testing.T, args ...string) (string, int, error) {
	t.Helper()
	var out bytes.Buffer
	namespace := "default"
	stdin, err := os.Open("testdata/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	reach := cluster.NewFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
	c := Command("ctl", &namespace, reach, stdin, output.Writer{Out: &out})
	c.SetArgs(append([]string{}, args...)) // cobra would use the process's arguments instead of nil
	c.SilenceErrors, c.SilenceUsage = true, true
	err = c.Execute()
	return out.String(), outcome.StatusOf(err), err
}

func TestGolden(t *testing.T) {
	for name, test := range map[string]struct {
		args   string
		status int
	}{
		"outbound.txt":         {"--injected --to 10.96.0.10:80", outcome.Well},
		"outbound-wide.txt":    {"--injected --to 10.96.0.10:80 -o wide", outcome.Well},
		"outbound-picture.txt": {"--injected --to 10.96.0.10:80 --picture", outcome.Well},
		"outbound.svg":         {"--injected --to 10.96.0.10:80 --picture=svg", outcome.Well},
		"outbound.json":        {"--injected --to 10.96.0.10:80 -o json", outcome.Well},
		"outbound-output.yaml": {"--injected --to [fd00:10:96::a]:80 -o yaml", outcome.Well},
		"excluded.txt":         {"--injected --to 10.96.0.10:5432", outcome.Well},
		"iptables.txt":         {"--injected --to 10.96.0.10:5432 --backend iptables", outcome.Well},
		"inbound.txt":          {"--injected --from outside --to pod:8080", outcome.Well},
		"proxy.txt":            {"--injected --from proxy --to pod:8080", outcome.Well},
		"uid.txt":              {"--injected --from uid:1337 --to 10.96.0.10:80", outcome.Well},
		"group.txt":            {"--injected --from uid:0:1337 --to 10.96.0.10:80", outcome.Well},
		"udp.txt":              {"--injected --proto udp --to 10.96.0.10:80", outcome.Well},
		"dns-tcp.txt":          {"--injected --dns --proto tcp --to 10.96.0.10", outcome.Well},
		"dns.txt":              {"--injected --dns --to fd00:10:96::a", outcome.Well},
		"untouched.txt":        {"--to 10.96.0.10:80 --pod-address 10.1.2.3", outcome.Well},
		"tproxy.txt": {"-f ../explain/testdata/injected.yaml --from outside --to pod:8080 --picture -o wide",
			outcome.Well},
		"host-network.txt":  {"-f testdata/host-network.yaml --to 10.96.0.10:80 --picture", outcome.Well},
		"host-network.svg":  {"-f testdata/host-network.yaml --to 10.96.0.10:80 --picture=svg", outcome.Well},
		"host-network.json": {"-f testdata/host-network.yaml --to pod:80 --from outside -o json", outcome.Well},
		"refused.txt":       {"-f testdata/refused.yaml --injected --to 10.96.0.10:80", outcome.NotWell},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.HasPrefix(test.args, "-f") {
				test.args = "-f testdata/pod.yaml " + test.args
			}
			got, status, err := traced(t, strings.Fields(test.args)...)
			if status != test.status {
				t.Errorf("status %d: %v", status, err)
			}
			golden.Compare(t, filepath.Join("testdata", name), got)
			if strings.HasSuffix(name, ".txt") {
				golden.Fits(t, name, got, output.Width)
			}
		})
	}
}

// Standard input is read like a file.
func TestStandardInput(t *testing.T) {
	got, status, err := traced(t, "-f", "-", "--injected", "--to", "10.96.0.10:80")
	want, _, _ := traced(t, "-f", "testdata/pod.yaml", "--injected", "--to", "10.96.0.10:80")
	if status != outcome.Well || got != want {
		t.Errorf("%d, %v: %s", status, err, got)
	}
}

func TestMisuse(t *testing.T) {
	for args, want := range map[string]string{
		"--to 10.96.0.10:80":                                             "valid: names of pods, -f FILE",
		"cart-0 -f testdata/pod.yaml --to 10.96.0.10:80":                 "exclude each other",
		"cart-0 --injected --to 10.96.0.10:80":                           "--injected is for -f alone",
		"a/b/c --to 10.96.0.10:80":                                       "valid: NAME, or NAMESPACE/NAME",
		"-f testdata/pod.yaml":                                           "--to",
		"-f testdata/pod.yaml --to 10.96.0.10":                           "no port",
		"-f testdata/pod.yaml --to 10.96.0.10:0":                         "not a port number",
		"-f testdata/pod.yaml --to fd00::1":                              "no port",
		"-f testdata/pod.yaml --to cart:80":                              "not an address",
		"-f testdata/pod.yaml --to [::ffff:10.0.0.1]:80":                 "not an address",
		"-f testdata/pod.yaml --to [[fd00::1]]:80":                       "not an address",
		"-f testdata/pod.yaml --to 10.0.0.1]:80":                         "not an address",
		"-f testdata/pod.yaml --to [fd00::1:80":                          "no port",
		"-f testdata/pod.yaml --to [pod]:80":                             "not an address",
		"-f testdata/pod.yaml --to pod:80 --pod-address 0.0.0.0":         "no pod has such an address",
		"-f testdata/pod.yaml --to pod:80 --pod-address 127.0.0.1":       "no pod has such an address",
		"-f testdata/pod.yaml --to pod:80 --pod-address ff02::1":         "no pod has such an address",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --from me":                "unknown sender",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --from uid:x":             "unknown sender",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --from uid:1:x":           "not a user or group ID",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --from outside":           "a packet from outside goes to the pod",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --proto icmp":             "unknown protocol",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --backend auto":           "unknown backend",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --picture=png":            "unknown kind of picture",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --picture svg":            "valid: --picture=svg, or NAMESPACE/svg",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --picture -o json":        "a picture has no such format",
		"-f testdata/pod.yaml --to 10.0.0.1:80 -o xml":                   "unknown format",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --pod-address cart":       "not an address",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --pod-address fd00::1":    "the pod has no address of that family",
		"-f ../explain/testdata/kinds.yaml --to 1.2.3.4:5 --picture=svg": "a drawing shows one",
		"-f testdata/pod.yaml --to 10.0.0.1:80 --live":                   "with -f there is no pod to send from",
		"-f testdata/none.yaml --to 10.0.0.1:80":                         "no such file",
		"-f testdata/refused.yaml --injected --to cart":                  "no port",
		"-f testdata/refused.yaml --injected --to cart:80":               "not an address",
		"-f testdata/refused.yaml --injected":                            "no port",
		"-f testdata/none.yaml --to cart:80":                             "not an address",
		"-f testdata/pod.yaml --to pod:80 --agents-namespace x":          "--agents-namespace has no effect: with -f",
		"-f - -f - --to pod:80":                                          "standard input can be read only once",
	} {
		out, status, err := traced(t, strings.Fields(args)...)
		if status != outcome.Misused || err == nil || !strings.Contains(err.Error(), want) || out != "" {
			t.Errorf("%q: status %d, %v, %q", args, status, err, out)
		}
	}
}
