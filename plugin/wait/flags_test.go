package wait

import (
	"flag"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/program"
)

// testProgram returns the program with these outputs.
func testProgram(stdout, stderr io.Writer) program.Program {
	return program.Program{Name: "istio-pod-network-wait", Help: help, Stdout: stdout, Stderr: stderr}
}

// parsed returns the options of a valid command line.
func parsed(t testing.TB, args ...string) options {
	t.Helper()
	var out strings.Builder
	o, status, ended := process{Program: testProgram(&out, &out), args: args}.parse()
	if ended {
		t.Fatalf("%q: exit code %d, %s", args, status, out.String())
	}
	return o
}

func TestFlags(t *testing.T) {
	plain := parsed(t)
	if plain.mode != modeAny || plain.timeout != 5*time.Minute || !slices.Equal(plain.files, defaultFiles) ||
		plain.expected != (expectation{proxyUID: 1337, outbound: 15001, inbound: 15006, families: familiesAll}) ||
		plain.termination != "/dev/termination-log" {
		t.Errorf("defaults: %+v", plain)
	}
	// The arguments that the 2018 controller's template used.
	old := parsed(t, strings.Fields(
		"init --file /etc/podinfo/pod_annotations --annotation-key a/b --annotation-value done "+
			"--timeout 300 --delay 10")...)
	if old.files[0] != "/etc/podinfo/pod_annotations" || old.statusKey != "a/b" || old.value != "done" ||
		old.timeout != 300*time.Second ||
		old.interval() != plain.poll {
		t.Errorf("the 2018 controller's flags: %+v", old)
	}
	all := parsed(t, strings.Fields("--mode=probe --file=/f --netns-annotation-key=n --timeout=1m --poll=3 --delay=2s "+
		"--proxy-uid=2000 --outbound-port=1 --inbound-port=65535 --families=proxy --termination-log=")...)
	if all.mode != modeProbe || all.netnsKey != "n" || all.timeout != time.Minute || all.interval() != 2*time.Second ||
		all.termination != "" ||
		all.expected != (expectation{proxyUID: 2000, outbound: 1, inbound: 65535, families: familiesProxy}) {
		t.Errorf("every flag: %+v", all)
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string][]string{
		"--mode all":                 {"--mode", `"all"`, "any, annotation, probe"},
		"--mode":                     {"--mode"},
		"--families IPv4":            {"--families", `"IPv4"`, "all, proxy"},
		"--file=":                    {"--file", `""`, "path"},
		"--annotation-key=":          {"--annotation-key", `""`, "key"},
		"--annotation-value=":        {"--annotation-value", `""`, "value"},
		"--netns-annotation-key=":    {"--netns-annotation-key", `""`, "key"},
		"--timeout 0":                {"--timeout", `"0"`, "seconds"},
		"--timeout -5s":              {"--timeout", `"-5s"`, "seconds"},
		"--timeout 99999999999":      {"--timeout", `"99999999999"`, "seconds"},
		"--timeout soon":             {"--timeout", `"soon"`, "300s"},
		"--poll 0s":                  {"--poll", `"0s"`, "seconds"},
		"--delay -1":                 {"--delay", `"-1"`, "seconds"},
		"--proxy-uid 0":              {"--proxy-uid", `"0"`, "1 to 4294967294"},
		"--proxy-uid 4294967295":     {"--proxy-uid", `"4294967295"`, "1 to 4294967294"},
		"--proxy-uid istio":          {"--proxy-uid", `"istio"`, "1 to 4294967294"},
		"--outbound-port 0":          {"--outbound-port", `"0"`, "1 to 65535"},
		"--inbound-port 65536":       {"--inbound-port", `"65536"`, "1 to 65535"},
		"--unknown 1":                {"--unknown"},
		"init init":                  {`"init"`},
		"--timeout 300 somewhere":    {`"somewhere"`},
		"istio-iptables -p 15001 -z": {`"istio-iptables"`},
	} {
		var stdout, stderr strings.Builder
		p := process{Program: testProgram(&stdout, &stderr), args: strings.Fields(args)}
		if code := p.run(); code != program.ExitUsage || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, %q", args, code, stdout.String())
		}
		for _, word := range append(want, "--help") {
			if !strings.Contains(stderr.String(), word) {
				t.Errorf("%s: want %q in %q", args, word, stderr.String())
			}
		}
	}
}

// TestHelp checks that the help has every flag.
func TestHelp(t *testing.T) {
	for _, args := range []string{"--help", "-h", "help", "--version", "version"} {
		var stdout, stderr strings.Builder
		p := process{Program: testProgram(&stdout, &stderr), args: []string{args}}
		if code := p.run(); code != 0 || stderr.Len() > 0 || !strings.HasPrefix(stdout.String(), "istio-pod-network-wait") {
			t.Errorf("%s: exit code %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
	for _, name := range append(flagNames((&options{}).flags()), "help", "version") {
		if !strings.Contains(help, "--"+name) {
			t.Errorf("the help does not speak of --%s", name)
		}
	}
	for row := range strings.SplitSeq(help, "\n") {
		if len(row) > 125 {
			t.Errorf("too wide: %q", row)
		}
	}
}

func flagNames(set *flag.FlagSet) (names []string) {
	set.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return names
}
