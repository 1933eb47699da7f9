package redirect

import (
	"slices"
	"strings"
	"testing"
)

// parsers has every parser of a single value, as a function from text to canonical text.
var parsers = map[string]func(string) (string, error){
	"port":       canonical(ParsePort, func(p Port) string { return portText(uint16(p)) }),
	"id":         canonical(ParseID, ID.String),
	"proxyUID":   canonical(parseProxyUID, ID.String),
	"mode":       canonical(ParseMode, func(m Mode) string { return string(m) }),
	"selection":  canonical(ParseSelection, func(s Selection) string { return string(s) }),
	"ports":      canonical(ParsePorts, Ports.String),
	"portList":   canonical(listOnly(ParsePorts), Ports.String),
	"inbound":    canonical(parseExcludeInbound, Ports.String),
	"prefixes":   canonical(ParsePrefixes, Prefixes.String),
	"prefixList": canonical(listOnly(ParsePrefixes), Prefixes.String),
	"interfaces": canonical(ParseInterfaces, Interfaces.String),
	"groups":     canonical(ParseGroups, Groups.String),
	"groupList":  canonical(listOnly(ParseGroups), Groups.String),
	"bool":       canonical(parseBool, func(b bool) string { return map[bool]string{true: "true", false: "false"}[b] }),
}

func canonical[T any](parse func(string) (T, error), print func(T) string) func(string) (string, error) {
	return func(text string) (string, error) {
		v, err := parse(text)
		if err != nil {
			return "", err
		}
		return print(v), nil
	}
}

// accepted maps text to its canonical form. Istio's plugin was seen to accept the values marked Istio.
var accepted = map[string]map[string]string{
	"port":      {"1": "1", "80": "80", "65535": "65535", "0080": "80"},
	"id":        {"0": "0", "1337": "1337", "4294967294": "4294967294", "1000660000": "1000660000"},
	"proxyUID":  {"1": "1", "1337": "1337", "4294967294": "4294967294"},
	"mode":      {"REDIRECT": "REDIRECT", "TPROXY": "TPROXY", "NONE": "NONE"},
	"selection": {"injected": "injected", "annotated": "annotated"},
	"ports": {
		"": "", " ": "", "*": "*", "80": "80", "443,80": "80,443", "80,80": "80",
		"0": "0", "0,65535": "0,65535", // Istio: port 0
		"8000-8100": "8000-8100", "0-65535": "0-65535", "80-80": "80", "81-82": "81,82", "1-3,2-5": "1-5",
		"443,8000-8100,25": "25,443,8000-8100", "80,81,82": "80-82", "80-90,91,92-92": "80-92", " 5-9 ": "5-9",
		"65533-65534,65535": "65533-65535", "8000-8100,8050,8099-8200": "8000-8200",
		"80, 443": "80,443", " 80 ,443 ": "80,443", "\t80\n": "80", // Istio: spaces around items
	},
	"portList": {"": "", "80,443": "80,443", "0": "0", "1-1024": "1-1024"},
	"inbound": {"15000-15089": "15000-15090", "": "15020,15021,15090", "80": "80,15020,15021,15090",
		"15090,15020": "15020,15021,15090"},
	"prefixes": {
		"": "", "*": "*", "10.0.0.0/8": "10.0.0.0/8", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
		"10.0.0.0/8,10.1.0.0/16":            "10.0.0.0/8", // Istio: overlapping
		"10.1.0.0/16,10.0.0.0/8,11.0.0.0/8": "10.0.0.0/8,11.0.0.0/8",
		"10.0.0.0/8,10.0.0.0/8":             "10.0.0.0/8", // Istio: repeated
		"10.1.2.3/8":                        "10.0.0.0/8", // Istio: host bits set
		"FD00::1/8,2001:db8::/32":           "2001:db8::/32,fd00::/8",
		"fd00::/8,10.0.0.0/8":               "10.0.0.0/8,fd00::/8", // Istio: IPv6 prefixes
		"10.0.0.0/9,10.128.0.0/9":           "10.0.0.0/9,10.128.0.0/9",
		"::ffff:10.0.0.1/128,10.0.0.0/8":    "10.0.0.0/8,::ffff:10.0.0.1/128",
		"127.0.0.1/32,::1/128":              "127.0.0.1/32,::1/128",
	},
	"prefixList": {"": "", "10.0.0.0/8": "10.0.0.0/8", "0.0.0.0/0": "0.0.0.0/0"},
	"interfaces": {
		"": "", " ": "", "net1": "net1", "net2,net1": "net1,net2", "net1,net1": "net1",
		"br-*": "br-*", "net1,br-*,br-0,br,br-*": "br,br-*,net1", "b-*,b*": "b*", "b-1,b.1,b-*": "b-*,b.1",
		"b,b*": "b*", "12345678901234*": "12345678901234*", ".*": ".*",
		" net1 , net2 ":   "net1,net2", // Istio: spaces around items
		"123456789012345": "123456789012345", "eth0.100": "eth0.100", "a_b-c:d@e": "a_b-c:d@e", "...": "...",
	},
	"groups":    {"": "", " ": "", "*": "*", "0": "0", "1338": "1338", " 5 , 3,5": "3,5", "4294967294": "4294967294"},
	"groupList": {"": "", "7,6": "6,7"},
	"bool":      {"true": "true", "false": "false"},
}

// rejected has the values that Istio's plugin rejects, and those that it accepts and fails on later.
var rejected = map[string][]string{
	"port":      {"", "0", "65536", "70000", "-1", "+80", "0x50", " 80", "80 ", "http", "80,81", "*", "1e3", "80.0", "٣"},
	"id":        {"", "-1", "4294967295", "4294967296", "+1", "0x1", "root", " 1", "1.0", "18446744073709551616"},
	"proxyUID":  {"", "0", "00", "-1", "4294967295", "root"},
	"mode":      {"", "redirect", "Redirect", "REDIRECT ", " TPROXY", "tproxy", "none", "None", "DIVERT"},
	"selection": {"", "all", "Injected", "injected ", "namespaces"},
	"ports": {"70000", "65536", "-1", "http", "80:90", "90-80", "80-", "-80", "80--90", "80-90-100", "80 - 90",
		"80-65536", "+80", "0x50", ",", "80,,443", "80,", ",80", "80, ",
		"*,80", "80,*", "* ", "**", "80 443", "80;443", "1e3", "80.0", "99999999999999999999"},
	"portList": {"*", "70000", "80,"},
	"inbound":  {"*", "70000", "80,"},
	"prefixes": {"10.0.0.1", "fd00::1", " ", " 10.0.0.0/8", "10.0.0.0/8, 11.0.0.0/8", "10.0.0.0/33", "fd00::/129",
		"10.0.0.0/-1",
		"10.0.0.0/", "/8", "10.0.0.0/8,", ",", "*,10.0.0.0/8", "10.0.0.0/8,*", " *", "10.0.0/8", "10.0.0.0/255.0.0.0",
		"10.0.0.0/08", "fe80::%eth0/64", "example.com", "10.0.0.256/32"},
	"prefixList": {"*", "10.0.0.1", "10.0.0.0/33"},
	"interfaces": {"1234567890123456", "net 1", "net/1", "net;1", "net+", "*", "n*t", "net**", "*net",
		"123456789012345*", ",", "net1,", "net1,,net2", ".",
		"..", "é",
		"net\x00", "\xff", "net\"1", "net'1", "net\n1", "$(id)", "net!"},
	"groups":    {"java", "-1", "4294967295", "1,", ",", "1,,2", "*,1", "1-5", "+1", "0x1"},
	"groupList": {"*", "x"},
	"bool":      {"", "True", "TRUE", "1", "0", "t", "yes", " true"},
}

func TestParsersAccept(t *testing.T) {
	if got, want := sortedKeys(accepted), sortedKeys(parsers); !slices.Equal(got, want) {
		t.Fatalf("values for %q, parsers %q", got, want)
	}
	for name, values := range accepted {
		for text, want := range values {
			got, err := parsers[name](text)
			if err != nil || got != want {
				t.Errorf("%s %q = %q, %v, want %q", name, text, got, err, want)
			}
			if again, err := parsers[name](got); err != nil || again != got {
				t.Errorf("%s %q: its own form %q reads as %q, %v", name, text, got, again, err)
			}
		}
	}
}

func TestParsersReject(t *testing.T) {
	if got, want := sortedKeys(rejected), sortedKeys(parsers); !slices.Equal(got, want) {
		t.Fatalf("values for %q, parsers %q", got, want)
	}
	for name, values := range rejected {
		for _, text := range values {
			if got, err := parsers[name](text); err == nil {
				t.Errorf("%s accepts %q as %q", name, text, got)
			} else if err.Error() == "" || strings.HasSuffix(err.Error(), ".") {
				t.Errorf("%s %q: error %q", name, text, err)
			}
		}
	}
}

// The error for a list names the item, because a list may have hundreds of items.
func TestListErrorsNameTheItem(t *testing.T) {
	for name, text := range map[string]string{
		"ports": "80, 81-90 ,x 1", "prefixes": "10.0.0.0/8,11.0.0.0/8,x 1", "interfaces": "net1,net2,x 1",
		"groups": "1, 2 ,x 1",
	} {
		if _, err := parsers[name](text); err == nil || !strings.Contains(err.Error(), `item 3, "x 1"`) {
			t.Errorf("%s %q: %v", name, text, err)
		}
	}
}

func TestSets(t *testing.T) {
	input := []uint16{443, 80, 80}
	ports := PortsOf(input...)
	if got := ports.String(); got != "80,443" || !slices.Equal(input, []uint16{443, 80, 80}) {
		t.Errorf("got %v of %v", got, input)
	}
	if got := ports.union(81, 80).String(); got != "80,81,443" || ports.String() != "80,443" {
		t.Errorf("union %v, and the set is now %v", got, ports)
	}
	if got := ports.without(80).String(); got != "443" || ports.String() != "80,443" {
		t.Errorf("without %v, and the set is now %v", got, ports)
	}
	for _, test := range []struct {
		text, want string
		without    uint16
	}{
		{"80-90", "80-84,86-90", 85}, {"80-90", "81-90", 80}, {"80-90", "80-89", 90}, {"80-82", "80,82", 81},
		{"80-90", "80-90", 91}, {"0-65535", "0-65534", 65535}, {"0-65535", "1-65535", 0}, {"80-83", "80,81,83", 82},
	} {
		set, err := ParsePorts(test.text)
		if got := set.without(test.without).String(); err != nil || got != test.want {
			t.Errorf("%s without %d is %s, %v, want %s", test.text, test.without, got, err, test.want)
		}
	}
	all := AllPorts()
	if !all.All() || all.Empty() || all.List() != nil || !all.union(1).All() || !all.without(1).All() {
		t.Errorf("all ports: %+v", all)
	}
	if none := (Ports{}); none.All() || !none.Empty() || !ports.without(80).without(443).Empty() {
		t.Errorf("no ports: %+v", none)
	}
	prefixes, _ := ParsePrefixes("fd00::/8,10.0.0.0/8,::ffff:10.0.0.0/104")
	if v4, v6 := prefixes.Of(IPv4), prefixes.Of(IPv6); len(v4) != 1 || len(v6) != 2 || prefixes.All() {
		t.Errorf("by family: %v, %v", v4, v6)
	}
	if everything := AllPrefixes(); !everything.All() || everything.Of(IPv4) != nil {
		t.Errorf("all addresses: %+v", everything)
	}
}

func TestGlobs(t *testing.T) {
	for _, test := range []struct {
		patterns, yes, no []string
	}{
		{nil, nil, []string{"", "a"}},
		{[]string{"kube-system"}, []string{"kube-system"}, []string{"kube-systems", "my-kube-system", "kube"}},
		{[]string{"kube-*", "istio-?"}, []string{"kube-", "kube-public", "istio-1"}, []string{"kube", "istio-",
			"istio-12"}},
		{[]string{"team-[a-c]"}, []string{"team-a", "team-c"}, []string{"team-d", "team-"}},
		{[]string{"team-[^a-c]"}, []string{"team-d"}, []string{"team-a"}},
		{[]string{"*"}, []string{"a", "kube-system"}, nil},
	} {
		globs, err := ParseGlobs("excludeNamespaces", test.patterns)
		if err != nil {
			t.Errorf("%q: %v", test.patterns, err)
		}
		for _, name := range append(test.yes, test.no...) {
			if got := globs.Match(name); got != slices.Contains(test.yes, name) {
				t.Errorf("%q matches %q: %v", test.patterns, name, got)
			}
		}
	}
	for _, bad := range []string{"", "[", "a[", "[]", "[a", "[-]", `a\`, "*[", "a*b["} {
		_, err := ParseGlobs("excludeNamespaces", []string{"fine", bad})
		wantInvalid(t, err, "excludeNamespaces[1]")
	}
}

func TestSelectionError(t *testing.T) {
	_, err := ParseSelection("all")
	wantInvalid(t, err, "selection", `"all"`, "injected or annotated")
}
