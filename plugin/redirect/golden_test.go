package redirect

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/golden"
)

// profiles are the `redirect` objects whose rules are in testdata/<name>.nft.
var profiles = map[string]string{
	"default":             `{}`,
	"none":                `{"mode":"NONE","dnsCapture":true,"dropInvalid":true}`,
	"tproxy":              `{"mode":"TPROXY"}`,
	"dns":                 `{"dnsCapture":true}`,
	"tproxy-dns":          `{"mode":"TPROXY","dnsCapture":true}`,
	"drop-invalid":        `{"dropInvalid":true}`,
	"tproxy-drop-invalid": `{"mode":"TPROXY","dropInvalid":true}`,
	"ids":                 `{"proxyUID":1000660000,"proxyGID":1000660001}`,
	"gid-0":               `{"proxyGID":0,"dnsCapture":true}`,
	"tproxy-gid-0":        `{"mode":"TPROXY","proxyGID":0}`,
	"ports":               `{"outboundPort":16001,"inboundPort":16006,"dnsPort":16053,"dnsCapture":true}`,
	"tproxy-ports":        `{"mode":"TPROXY","outboundPort":16001,"inboundPort":16006}`,
	"inbound-none":        `{"includeInboundPorts":""}`,
	"inbound-list":        `{"includeInboundPorts":"9090,8080,15008","excludeInboundPorts":"22"}`,
	"inbound-excluded":    `{"excludeInboundPorts":"22"}`,
	"tproxy-inbound-none": `{"mode":"TPROXY","includeInboundPorts":""}`,
	"tproxy-inbound-list": `{"mode":"TPROXY","includeInboundPorts":"8080,9090"}`,
	"outbound-none":       `{"includeOutboundIPRanges":""}`,
	"outbound-ipv6-only":  `{"includeOutboundIPRanges":"fd00::/8"}`,
	"outbound-ports":      `{"includeOutboundIPRanges":"","includeOutboundPorts":"443,80"}`,
	"outbound-ports-all":  `{"includeOutboundIPRanges":"10.0.0.0/8","includeOutboundPorts":"*"}`,
	"outbound-excluded":   `{"excludeOutboundPorts":"25,0","excludeOutboundIPRanges":"192.0.2.0/24,2001:db8::/32"}`,
	"port-ranges": `{"includeOutboundPorts":"443,8000-8100","excludeOutboundPorts":"9000-9010","excludeInboundPorts":` +
		`"2000-2010,65000-65535"}`,
	"tproxy-port-ranges": `{"mode":"TPROXY","includeInboundPorts":"8000-20000","excludeOutboundPorts":"0-79,81-1023"}`,
	"loopback":           `{"includeOutboundIPRanges":"127.0.0.1/32,::1/128"}`,
	"loopback-dns":       `{"includeOutboundIPRanges":"127.0.0.0/8,10.0.0.0/8","dnsCapture":true}`,
	"interfaces":         `{"excludeInterfaces":"net2,net1"}`,
	"groups-excluded":    `{"excludeOutboundOwnerGroups":"1338,0","dnsCapture":true}`,
	"groups-included": `{"includeOutboundOwnerGroups":"1000","excludeOutboundOwnerGroups":"5","dnsCapture":true,` +
		`"includeOutboundIPRanges":"10.0.0.0/8,127.0.0.0/8"}`,
	"groups-none":        `{"includeOutboundOwnerGroups":"","dnsCapture":true}`,
	"tproxy-groups":      `{"mode":"TPROXY","includeOutboundOwnerGroups":"1000,2000","includeOutboundPorts":"*"}`,
	"interface-prefixes": `{"excludeInterfaces":"br-*,docker0","rerouteVirtualInterfaces":"tap*"}`,
	"tproxy-interfaces":  `{"mode":"TPROXY","excludeInterfaces":"net1"}`,
	"reroute":            `{"rerouteVirtualInterfaces":"tap0"}`,
	"reroute-ranges": `{"rerouteVirtualInterfaces":"tap1,tap0","excludeInterfaces":"tap0",` +
		`"includeOutboundIPRanges":"10.0.0.0/8"}`,
	"reroute-outbound-off": `{"rerouteVirtualInterfaces":"tap0","includeOutboundIPRanges":"","includeInboundPorts":""}`,
	"tproxy-reroute":       `{"mode":"TPROXY","rerouteVirtualInterfaces":"tap0"}`,
	"lists":                listsProfile,
	"tproxy-lists":         strings.Replace(listsProfile, "{", `{"mode":"TPROXY",`, 1),
}

// listsProfile uses every list.
const listsProfile = `{"includeOutboundIPRanges":"10.0.0.0/8,172.16.0.0/12,fd00::/8",` +
	`"excludeOutboundIPRanges":"10.9.0.0/16,fd00:9::/32",` +
	`"includeInboundPorts":"8080,9090","includeOutboundPorts":"80,443","excludeOutboundPorts":"25,587",` +
	`"excludeInterfaces":"net1,net2",` +
	`"rerouteVirtualInterfaces":"tap0","dnsCapture":true,"dropInvalid":true}`

func TestGolden(t *testing.T) {
	for name, raw := range profiles {
		golden.Compare(t, filepath.Join("testdata", name+".nft"), spec(t, raw).RuleSet().String())
	}
}

// Every golden file belongs to a profile.
func TestGoldenFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.nft")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range sortedKeys(profiles) {
		want = append(want, filepath.Join("testdata", name+".nft"))
	}
	slices.Sort(want)
	if !slices.Equal(files, want) {
		t.Errorf("files %q, profiles %q", files, want)
	}
}

func TestEmpty(t *testing.T) {
	for _, s := range []Spec{spec(t, profiles["none"]), {}} {
		if set := s.RuleSet(); len(set.Tables)+len(set.Addresses)+len(set.Routes) != 0 || set.String() != "" {
			t.Errorf("mode %q has rules: %s", s.Mode, set)
		}
	}
}

// The order, duplicates and overlaps of a list's members do not change the rule set.
func TestInputOrderDoesNotMatter(t *testing.T) {
	for _, pair := range [][2]string{
		{listsProfile, `{"dropInvalid":true,"dnsCapture":true,"rerouteVirtualInterfaces":" tap0 ,tap0",` +
			`"excludeInterfaces":"net2, net1,net2",` +
			`"excludeOutboundPorts":"587,25,587","includeOutboundPorts":"443,80","includeInboundPorts":" 9090,8080,8080 ",` +
			`"excludeOutboundIPRanges":"fd00:9::7/32,10.9.1.0/24,10.9.0.1/16",` +
			`"includeOutboundIPRanges":"fd00::/8,172.16.0.0/12,10.0.0.0/8,10.1.0.0/16,10.0.0.0/8"}`},
		{`{}`, `{"excludeInboundPorts":"15090,15021"}`},
		{`{"excludeOutboundPorts":"80-84,90"}`, `{"excludeOutboundPorts":"84,90-90,82-83,80,81,82"}`},
	} {
		a, b := spec(t, pair[0]).RuleSet(), spec(t, pair[1]).RuleSet()
		if a.String() != b.String() || a.Hash() != b.Hash() {
			t.Errorf("%s", golden.Difference(b.String(), a.String()))
		}
		for range 20 {
			if again := spec(t, pair[1]).RuleSet().String(); again != b.String() {
				t.Fatalf("not the same every time: %s", golden.Difference(again, b.String()))
			}
		}
	}
}

func TestHashFollowsText(t *testing.T) {
	hashes, texts := map[string]string{}, map[string]string{}
	for name, raw := range profiles {
		set := spec(t, raw).RuleSet()
		text, hash := set.String(), set.Hash()
		if len(hash) != 16 || strings.Trim(hash, "0123456789abcdef") != "" {
			t.Errorf("%s: hash %q", name, hash)
		}
		if other, seen := texts[hash]; seen && other != set.text(false) {
			t.Errorf("%s: another text with the same hash", name)
		}
		if other, seen := hashes[text]; seen {
			t.Errorf("%s: the same rules as %s, one of them shows nothing", name, other)
		}
		hashes[text], texts[hash] = name, set.text(false)
	}
	if len(hashes) != len(profiles) {
		t.Errorf("%d profiles, %d texts", len(profiles), len(hashes))
	}
	// Records on nodes have hashes: with another algorithm every pod would look changed.
	if got := (RuleSet{}).Hash(); got != "4ffe3eccb8ab0231" {
		t.Errorf("hash of nothing: %s", got)
	}
}
