package wait

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFlags(t *testing.T) {
	plain, err := parseFlags(nil)
	must(t, err)
	if plain.mode != modeAny || plain.timeout != 5*time.Minute || !slices.Equal(plain.files, defaultFiles) ||
		plain.expected != (expectation{proxyUID: 1337, outbound: 15001, inbound: 15006}) || plain.termination != "/dev/termination-log" {
		t.Errorf("defaults: %+v", plain)
	}
	// As the 2018 controller's template called its program.
	old, err := parseFlags(strings.Fields("init --file /etc/podinfo/pod_annotations --annotation-key a/b --annotation-value done --timeout 300 --delay 10"))
	must(t, err)
	if old.files[0] != "/etc/podinfo/pod_annotations" || old.statusKey != "a/b" || old.value != "done" || old.timeout != 300*time.Second ||
		old.interval() != plain.poll {
		t.Errorf("the predecessor's flags: %+v", old)
	}
	all, err := parseFlags(strings.Fields("--mode=probe --file=/f --netns-annotation-key=n --timeout=1m --poll=3 --delay=2s " +
		"--proxy-uid=2000 --outbound-port=1 --inbound-port=65535 --termination-log="))
	must(t, err)
	if all.mode != modeProbe || all.netnsKey != "n" || all.timeout != time.Minute || all.interval() != 2*time.Second || all.termination != "" ||
		all.expected != (expectation{proxyUID: 2000, outbound: 1, inbound: 65535}) {
		t.Errorf("every flag: %+v", all)
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string][]string{
		"--mode all":                 {"--mode", `"all"`, "any, annotation, probe"},
		"--mode":                     {"--mode"},
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
		p := program{args: strings.Fields(args), stdout: &stdout, stderr: &stderr}
		if code := p.run(); code != exitUsage || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, %q", args, code, stdout.String())
		}
		for _, word := range append(want, "--help") {
			if !strings.Contains(stderr.String(), word) {
				t.Errorf("%s: want %q in %q", args, word, stderr.String())
			}
		}
	}
}

// TestHelp wants every flag in the help.
func TestHelp(t *testing.T) {
	for _, args := range []string{"--help", "-h", "help", "--version", "version"} {
		var stdout, stderr strings.Builder
		p := program{args: []string{args}, stdout: &stdout, stderr: &stderr}
		if code := p.run(); code != 0 || stderr.Len() > 0 || !strings.HasPrefix(stdout.String(), "istio-pod-network-wait") {
			t.Errorf("%s: exit code %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
	var wrong error
	for _, name := range flagNames((&options{}).flags(&wrong)) {
		if name != "h" && !strings.Contains(help, "--"+name) {
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
