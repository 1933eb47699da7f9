package trace_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/columns"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
)

var (
	app     = &trace.Owner{UID: 1000, GID: 1000}
	sidecar = &trace.Owner{UID: 1337, GID: 1337}
	pod     = trace.Pod{Links: []trace.Link{{Name: "eth0", Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.244.1.7/24"), netip.MustParsePrefix("fd00:10:244:1::7/64")}}}}
)

// ways are those that the documentation shows, and others, one or more for everything that can become of a packet.
var ways = []struct {
	name     string
	settings map[string]any
	packet   trace.Packet
}{
	{"outbound", nil, trace.Packet{Proto: redirect.TCP, Dest: to("10.96.0.10:80"), Owner: app}},
	{"inbound", nil, trace.Packet{Proto: redirect.TCP, Source: to("10.244.2.9:40000"), Dest: to("10.244.1.7:8080"),
		In: "eth0"}},
	{"inbound-ipv6", nil, trace.Packet{Proto: redirect.TCP, Source: to("[2001:db8::9]:40000"),
		Dest: to("[2001:db8:85a3:1319:8a2e:370:7344:1234]:65000"), In: "eth0"}},
	{"dns", map[string]any{"dnsCapture": true},
		trace.Packet{Proto: redirect.UDP, Dest: to("10.96.0.2:53"), Owner: app}},
	{"tproxy", map[string]any{"mode": "TPROXY"}, trace.Packet{Proto: redirect.TCP, Source: to("10.244.2.9:40000"),
		Dest: to("10.244.1.7:8080"), In: "eth0"}},
	{"excluded", map[string]any{"excludeOutboundIPRanges": "10.96.0.0/16"},
		trace.Packet{Proto: redirect.TCP, Dest: to("10.96.0.10:80"), Owner: app}},
	{"health", nil, trace.Packet{Proto: redirect.TCP, Source: to("10.244.1.1:40000"), Dest: to("10.244.1.7:15021"),
		In: "eth0"}},
	{"own-pod", nil, trace.Packet{Proto: redirect.TCP, Dest: to("10.244.1.7:8080"), Owner: sidecar}},
	{"tproxy-own-user", map[string]any{"mode": "TPROXY"}, trace.Packet{Proto: redirect.TCP,
		Source: to("10.244.2.9:40000"), Dest: to("10.244.1.7:8080"), Owner: sidecar, Mark: 1337}},
	{"udp", nil, trace.Packet{Proto: redirect.UDP, Dest: to("10.96.0.10:4500"), Owner: app}},
	{"ipv6", nil, trace.Packet{Proto: redirect.TCP, Dest: to("[2001:db8:85a3:1319:8a2e:370:7344:1234]:65000"),
		Owner: app}},
	{"longest", nil, trace.Packet{Proto: redirect.TCP, Dest: to("[2001:db8:85a3:1319:8a2e:1370:7344:1234]:65000"),
		Owner: &trace.Owner{UID: 4294967294, GID: 4294967294}}},
	{"escape", nil, trace.Packet{Proto: redirect.TCP, Dest: to("10.96.0.10:80"), Owner: app,
		Conn: &trace.Conn{Original: to("10.96.0.10:80")}}},
	{"lists", map[string]any{"excludeOutboundPorts": "22,25,53,80,443,587,1433,3306,5432,6379,8080-8100,9042,9092,9200",
		"excludeOutboundIPRanges": "10.0.0.0/16,10.96.0.0/12,169.254.169.254/32,192.168.0.0/16,203.0.113.0/24"},
		trace.Packet{Proto: redirect.TCP, Dest: to("203.0.113.9:7000"), Owner: app}},
	{"invalid", map[string]any{"dropInvalid": true}, trace.Packet{Proto: redirect.TCP, Source: to("10.244.2.9:40000"),
		Dest: to("10.244.1.7:8080"), In: "eth0", Later: true, Invalid: true}},
}

func to(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// TestTables holds the text of each way, as a person reads it.
func TestTables(t *testing.T) {
	for _, c := range ways {
		rules := rulesOf(t, testnet.Profile{Settings: c.settings})
		var out strings.Builder
		for _, way := range rules.Follow(pod, c.packet) {
			fmt.Fprintf(&out, "%s\n", way.Table(false))
		}
		out.WriteString(trace.Picture(rules.Follow(pod, c.packet)...) + "\n")
		out.WriteString(rules.Trace(pod, c.packet).Table(true) + "\n")
		rules.Iptables = true
		out.WriteString(rules.Trace(pod, c.packet).Table(false))
		fits(t, c.name, out.String())
		golden.Compare(t, filepath.Join("testdata", c.name+".txt"), out.String())
	}
}

// drawn are the ways that stand in the documentation, and what their drawings are called there.
var drawn = map[string]string{
	"outbound": "What an app sends is redirected to its sidecar, which sends it on",
	"inbound":  "What comes for an app is redirected to its sidecar, which passes it on",
	"dns":      "An app's DNS query is redirected to its sidecar, which asks the server",
	"tproxy":   "With TPROXY the sidecar sees the client's address, and the app does, too",
	"escape":   "What would go around the sidecar is dropped",
}

// TestPictures holds the drawings in the documentation: with -update it draws them. Each is well-formed, and has a
// colour for both schemes.
func TestPictures(t *testing.T) {
	for _, c := range ways {
		title, there := drawn[c.name]
		if !there {
			continue
		}
		rules := rulesOf(t, testnet.Profile{Settings: c.settings})
		svg := trace.SVG(title, rules.Follow(pod, c.packet)...)
		for decoder := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		light, dark, _ := strings.Cut(svg, "prefers-color-scheme: dark")
		for _, name := range regexp.MustCompile(`var\((--\w+)\)`).FindAllStringSubmatch(svg, -1) {
			if !strings.Contains(light, name[1]+":") || !strings.Contains(dark, name[1]+":") {
				t.Errorf("%s: no colour %s for both schemes", c.name, name[1])
			}
		}
		golden.Compare(t, filepath.Join("..", "..", "docs", "pictures", c.name+".svg"), svg)
	}
}

// fits reports what is wider than a terminal.
func fits(t *testing.T, name, text string) {
	t.Helper()
	golden.Fits(t, name, text, trace.Width)
	if strings.ContainsRune(text, '\x1b') {
		t.Errorf("%s: a colour: %q", name, text)
	}
}

// Interfaces may have names of wide characters: the frame of the pod stays one all the same.
func TestWideNames(t *testing.T) {
	wide := trace.Pod{Links: []trace.Link{{Name: "限界限界限", Addresses: pod.Links[0].Addresses}}}
	all := rulesOf(t, testnet.Profile{}).Follow(wide, trace.Packet{Proto: redirect.TCP, Dest: to("10.96.0.10:80"),
		Owner: &trace.Owner{UID: 1337, GID: 1337}})
	picture := trace.Picture(all...)
	fits(t, "picture", picture+all[0].Table(true))
	if !strings.Contains(picture, "限界限界限") {
		t.Fatalf("the name is not there:\n%s", picture)
	}
	for line := range strings.Lines(picture) {
		at := columns.Of(line[:max(0, strings.LastIndexAny(line, "│┐┘┤┼"))])
		if !strings.ContainsAny(line, "限") || at == 83 || at == 93 {
			continue
		}
		t.Errorf("the frame is at column %d: %s", at, line)
	}
}
