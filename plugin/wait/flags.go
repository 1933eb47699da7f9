package wait

import (
	"flag"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/internal/program/flags"
	"github.com/istio-pod-network/controller/plugin/annotation"
)

// mode says which proof is accepted.
type mode string

const (
	modeAny        mode = "any"        // whichever comes first
	modeAnnotation mode = "annotation" // the pod's annotation, if it names this network namespace
	modeProbe      mode = "probe"      // a connection that the program makes is redirected
)

// defaultFiles are the files with the pod's annotations that are tried without --file: that of the 2018 controller's
// volume, and that of the volume that Istio's injector gives the proxy.
var defaultFiles = []string{"/etc/podinfo/pod_annotations", "/etc/istio/pod/annotations"}

const defaultTermination = "/dev/termination-log"

// options are the values of the command line.
type options struct {
	mode                       mode
	files                      []string // the first one that exists is used
	statusKey, value, netnsKey string
	timeout, poll, delay       time.Duration
	expected                   expectation
	termination                string // the path of the termination message; empty: none
}

func defaults() options {
	return options{
		mode: modeAny, files: defaultFiles,
		statusKey: annotation.Status, value: annotation.Initialized,
		netnsKey: annotation.NetNS,
		timeout:  300 * time.Second, poll: 500 * time.Millisecond,
		expected:    expectation{proxyUID: 1337, outbound: 15001, inbound: 15006, families: familiesAll},
		termination: defaultTermination,
	}
}

// flags defines the flags.
func (o *options) flags() *flag.FlagSet {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	add := func(name, valid string, accept func(string) bool) { flags.Func(set, name, "", valid, accept) }
	add("mode", "any, annotation, probe", func(v string) bool {
		o.mode = mode(v)
		return slices.Contains([]mode{modeAny, modeAnnotation, modeProbe}, o.mode)
	})
	text := func(name, valid string, target *string) {
		add(name, valid, func(v string) bool { *target = v; return v != "" && !strings.ContainsAny(v, "\x00\n") })
	}
	add("file", "the path of a file", func(v string) bool { o.files = []string{v}; return v != "" })
	text("annotation-key", "the key of an annotation", &o.statusKey)
	text("annotation-value", "the value that means initialized", &o.value)
	text("netns-annotation-key", "the key of an annotation", &o.netnsKey)
	const duration = "more than zero, as 300s, 5m or a bare number of seconds"
	add("timeout", duration, func(v string) bool { return seconds(v, &o.timeout) && o.timeout > 0 })
	add("poll", duration, func(v string) bool { return seconds(v, &o.poll) && o.poll > 0 })
	add("delay", "zero or more, as 10s or a bare number of seconds", func(v string) bool {
		return seconds(v, &o.delay) && o.delay >= 0
	})
	add("proxy-uid", userIDs, func(v string) bool { return userID(v, &o.expected.proxyUID) })
	add("outbound-port", ports, func(v string) bool { return port(v, &o.expected.outbound) })
	add("inbound-port", ports, func(v string) bool { return port(v, &o.expected.inbound) })
	add("families", "all, proxy", func(v string) bool {
		o.expected.families = families(v)
		return slices.Contains([]families{familiesAll, familiesProxy}, o.expected.families)
	})
	add("termination-log", "the path of a file, or empty for none", func(v string) bool { o.termination = v; return true })
	return set
}

const (
	userIDs = "a user ID from 1 to 4294967294"
	ports   = "a port from 1 to 65535"
)

// seconds parses a duration, or a number of seconds, as the 2018 controller's program did.
func seconds(value string, target *time.Duration) bool {
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		*target = time.Duration(n) * time.Second
		return true
	}
	d, err := time.ParseDuration(value)
	*target = d
	return err == nil
}

func userID(value string, target *uint32) bool {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 0 || n == 1<<32-1 { // 2^32-1 is the kernel's "no ID"
		return false
	}
	*target = uint32(n)
	return true
}

func port(value string, target *uint16) bool {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n == 0 {
		return false
	}
	*target = uint16(n)
	return true
}

// interval returns how often the file is read, in case inotify reports no change. --delay can only shorten it.
func (o options) interval() time.Duration {
	if o.delay > 0 {
		return min(o.poll, o.delay)
	}
	return o.poll
}

const help = `waits until this pod's packet rules are proven to be there

Runs as an init container before the sidecar and the app, as any user, without capabilities.

    istio-pod-network-wait [init] [flags]

  --mode any             which proof is accepted:
                           annotation  the pod's annotation says so, for this very network namespace
                           probe       a connection made by this program is redirected, in every IP family of the pod
                           any         whichever comes first
  --timeout 300s         give up after this long; a bare number means seconds
  --file PATH            the pod's annotations, a downward API file. Without it /etc/podinfo/pod_annotations, or where
                         that is absent /etc/istio/pod/annotations
  --annotation-key pod-network-controller.istio.io/status
  --annotation-value initialized
  --netns-annotation-key pod-network-controller.istio.io/netns
  --proxy-uid 1337       as this user the probe dials 127.0.0.6 and ::6 and expects to arrive at the inbound port; as
  --inbound-port 15006   any other user it dials 192.0.2.1 and 2001:db8::1 and expects the outbound port. Without rules
  --outbound-port 15001  that last attempt leaves the pod as one SYN with a hop limit of 1, which the node drops. The
                         pod's annotations pod-network-controller.istio.io/envoy-userid and envoy-port win, as they do
                         in the plugin that writes the rules
  --families all         which of the pod's IP families the probe expects to be redirected: all, or with the plugin's
                         redirect.families: proxy the one that the sidecar listens in, IPv4 where the pod has it.
                         Where the mark of this network namespace names one, that counts
  --poll 500ms           how often the file is read, beside being watched; the probe runs once a second
  --delay SECONDS        upper bound of --poll; a flag of the 2018 controller's
  --termination-log /dev/termination-log   where the reason of a failure goes; empty for nowhere
  --help, --version

Every 5 s a line on standard error says what is missing. Exit codes: 0 initialized, or nothing to wait for
("not-required"); 2 wrong arguments; 126 not initialized within --timeout, or impossible; 143 SIGTERM; 130 SIGINT.
`
