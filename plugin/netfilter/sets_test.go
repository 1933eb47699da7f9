package netfilter

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestIntervals writes intervals as start-end, the end being the first address after; the kernel takes no overlaps.
func TestIntervals(t *testing.T) {
	for prefixes, want := range map[string]string{
		"10.0.0.0/8":                             "10.0.0.0-11.0.0.0",
		"10.0.0.0/9 10.128.0.0/9":                "10.0.0.0-11.0.0.0",
		"10.0.0.0/24 10.0.2.0/24":                "10.0.0.0-10.0.1.0 10.0.2.0-10.0.3.0",
		"0.0.0.0/0 127.0.0.0/8":                  "0.0.0.0-",
		"126.0.0.0/7 127.0.0.0/8 128.0.0.0/8":    "126.0.0.0-129.0.0.0",
		"1.2.3.4/32 255.255.255.255/32":          "1.2.3.4-1.2.3.5 255.255.255.255-",
		"::/0 ::1/128":                           "::-",
		"fd00::/8 fe00::/8 ffff::/16":            "fd00::-ff00:: ffff::-",
		"10.0.0.0/24 10.0.1.0/32 10.0.1.2/31":    "10.0.0.0-10.0.1.1 10.0.1.2-10.0.1.4",
		"10.0.0.0/8 10.1.0.0/16 10.255.255.0/24": "10.0.0.0-11.0.0.0",
	} {
		var list []netip.Prefix
		for _, p := range strings.Fields(prefixes) {
			list = append(list, netip.MustParsePrefix(p))
		}
		var got strings.Builder
		for _, e := range intervals(list) {
			addr, _ := netip.AddrFromSlice(e.key)
			if e.end {
				fmt.Fprintf(&got, "%s ", addr)
			} else {
				fmt.Fprintf(&got, "%s-", addr)
			}
		}
		if text := strings.TrimSpace(got.String()); text != want {
			t.Errorf("%s: %s, want %s", prefixes, text, want)
		}
	}
}
